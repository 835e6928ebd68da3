"""Options that several commands share, and how they print."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hpo.watch.logs import LogFormat as LogFormats
from hpo.watch.logs import format_of

Storage = Annotated[
    str | None,
    typer.Option(
        envvar="HPO_STORAGE",
        help="The study store: a SQLAlchemy URL, a SQLite file, or file:PATH of a file that holds the URL. "
        "Default: sqlite:///hpo.db in the working directory.",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of the study.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RayAddress = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster, e.g. 'auto'. Default: a local Ray is started.")
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        envvar="HPO_LOG_FORMAT",
        metavar="text|json",
        help="json: every step as a JSON line on standard error, with study, trial, attempt and worker.",
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option(envvar="HPO_LOG_FILE", help="Append the log, in the same format, to this file (mode 600)."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Serve figures for Prometheus at this port; 0: any free one."),
]
MetricsHost = Annotated[
    str, typer.Option(help="Where they are served. They have no token: others can read them there.")
]


def emit(text: str) -> None:
    """Print to standard output."""
    sys.stdout.write(text + "\n")


def emit_json(value: Any) -> None:
    """Print a value as indented JSON; floats round-trip exactly."""
    emit(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Tell the person at the terminal something that is not the result; a log in JSON has it as a record."""
    if format_of(None) is LogFormats.JSON:
        logging.getLogger("hpo.cli").info("%s", text)
        return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
