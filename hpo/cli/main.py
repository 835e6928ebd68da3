"""The command ``hpo``: parse, call one function, print. Errors become one message and an exit code."""

import logging
import os
import sys
from importlib.metadata import entry_points

import typer

from hpo.cli import checking, controlling, delivering, launching, reading, storage
from hpo.errors import HpoError

app = typer.Typer(
    name="hpo",
    help="Search how to compress a language model: launch a study, read its front, take a model home.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_COMMANDS = (
    launching.launch,
    launching.resume,
    reading.status,
    reading.front,
    reading.show,
    controlling.stop,
    controlling.cancel,
    controlling.retry,
    controlling.add,
    delivering.export,
    checking.validate,
    checking.plan,
    checking.doctor,
)


def build() -> typer.Typer:
    """Register every command; those of the dashboards come by entry point, so none of it is imported."""
    for function in _COMMANDS:
        app.command(function.__name__)(function)
    app.command("list")(checking.list_registered)
    app.add_typer(storage.app, name="storage")
    for point in entry_points(group="compression_hpo.command"):
        app.command(point.name)(point.load())
    return app


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage, 130 interrupted."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        build()()
    except HpoError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
