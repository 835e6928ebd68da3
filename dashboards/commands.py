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
) -> None:
    """Watch the studies of a store in the browser: live, read-only, nothing leaves the machine.

    The address that is printed carries a token; without it no page opens.

    Example: hpo dashboard --storage sqlite:///hpo.db --port 8050
    """
    from dashboards.serve import serve

    serve(storage, host, port, allow_remote=allow_remote, announce=typer.echo)


def report(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    storage: Storage = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write what is known of a study to one HTML file that opens anywhere, also offline.

    Example: hpo report quickstart --out quickstart.html
    """
    from dashboards.report import write_report
    from hpo.store.store import Store

    with Store.open(storage, read_only=True) as store:
        write_report(store, name, out, force=force)
    typer.echo(f"wrote {out}")
