"""Commands about the study store as a whole."""

import typer

from hpo.cli.options import Storage, emit

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
