"""The two commands that join the command line by entry point. Dash and Plotly load when they run."""

from pathlib import Path
from typing import Annotated

import typer

Storage = Annotated[
    str | None,
    typer.Option(
        envvar="HPO_STORAGE", show_default="sqlite:///hpo.db", help="The study store: a URL or a .db file."
    ),
]


def dashboard(
    storage: Storage = None,
    host: Annotated[str, typer.Option(help="Address to serve at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve at; 0 takes a free one.")] = 8050,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Permit a --host that others can reach, over plain HTTP.")
    ] = False,
    allow_actions: Annotated[
        bool, typer.Option("--allow-actions", help="Permit to stop, cancel, retry and add trials.")
    ] = False,
) -> None:
    """Watch the studies of a store in the browser: live, read-only, nothing leaves the machine.

    The address that is printed carries a token; without it no page opens.

    Example: hpo dashboard --storage sqlite:///hpo.db --port 8050
    """
    from dashboards.serve import serve

    serve(storage, host, port, allow_remote=allow_remote, allow_actions=allow_actions, announce=typer.echo)


def report(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file to write.")] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file to write the trials to, one row a trial: .csv, .json or .parquet. May be repeated."
        ),
    ] = None,
    storage: Storage = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Write what is known of a study to one HTML file that opens anywhere; its trials to a table.

    Example: hpo report quickstart --out quickstart.html --data quickstart.csv
    """
    from dashboards.report import write_files
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        write_files(store, name, out, data or [], force=force)
    for path in [*([out] if out else []), *(data or [])]:
        typer.echo(f"wrote {path}")
