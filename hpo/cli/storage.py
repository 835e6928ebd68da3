"""Commands about the study store as a whole."""

import time
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.options import Json, Storage, emit, emit_json

app = typer.Typer(no_args_is_help=True, help="Look after the study store.", rich_markup_mode=None)


@app.callback()
def storage() -> None:
    """Look after the study store.

    Example: hpo storage upgrade
    """


@app.command()
def upgrade(storage: Storage = None) -> None:
    """Bring the schema of a store up to this version's; a store that is new enough stays as it is.

    Example: hpo storage upgrade --storage sqlite:///hpo.db
    """
    from hpo.store.store import Store

    with Store.open(storage) as store:
        emit(f"{store.url} has the schema of this version: {store.schema}")


@app.command()
def check(storage: Storage = None, as_json: Json = False) -> None:
    """Look for damage, rows that belong to nothing, and studies or trials that are stuck. Changes nothing.

    Exits with 1 if anything is found.

    Example: hpo storage check --storage sqlite:///hpo.db
    """
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        found = store.faults(time.time())
        if as_json:
            emit_json([fault.to_mapping() for fault in found])
        elif not found:
            studies = len(store.studies())
            said = f"{studies} {'study' if studies == 1 else 'studies'}"
            emit(f"{store.url} is whole: {said}, schema {store.schema}")
        for fault in () if as_json else found:
            emit(f"{fault}\n  {fault.remedy}")
    if found:
        raise typer.Exit(1)


@app.command()
def backup(
    out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")], storage: Storage = None
) -> None:
    """Copy a store as it stands, while studies run in it.

    Example: hpo storage backup --out hpo-backup.db
    """
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        emit(f"{store.url} is copied to {store.back_up(out)}")
