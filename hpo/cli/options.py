"""Options that several commands share, and how they print."""

import json
import sys
from typing import Annotated, Any

import typer

Storage = Annotated[
    str | None,
    typer.Option(
        envvar="HPO_STORAGE",
        help="The study store: a SQLAlchemy URL or a SQLite file. "
        "Default: sqlite:///hpo.db in the working directory.",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the study.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RayAddress = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster, e.g. 'auto'. Default: a local Ray is started.")
]


def emit(text: str) -> None:
    """Print to standard output."""
    sys.stdout.write(text + "\n")


def emit_json(value: Any) -> None:
    """Print a value as indented JSON; floats round-trip exactly."""
    emit(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Tell the person at the terminal something that is not the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
