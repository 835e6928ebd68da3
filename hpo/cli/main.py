"""The command ``hpo``: parse, call one function, print. Errors become one message and an exit code."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import typer

from hpo.cli import checking, controlling, delivering, launching, logs, reading, storage
from hpo.errors import HpoError, UsageError
from hpo.watch.logs import configure, format_of

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
    logs.logs,
    reading.front,
    reading.show,
    controlling.stop,
    controlling.cancel,
    controlling.retry,
    controlling.add,
    controlling.amend,
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


_WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+]*://[^\s:/@]*:[^\s/@][^\s]*@|[?&](ssl)?password=.", re.IGNORECASE)
"""An address, alone or behind ``--storage=``, that has a password."""


def _refuse_passwords(arguments: Sequence[str]) -> None:
    """Refuse a password among the arguments: every user of the machine can read them, and Ray keeps them.

    Raises:
        UsageError: saying where an address with a password belongs.
    """
    if any(_WITH_PASSWORD.search(argument) for argument in arguments):
        raise UsageError(
            "a password stands on the command line, where other users of this machine and of a Ray cluster "
            "can read it",
            "put the address into HPO_STORAGE, or into a file of mode 600: --storage file:PATH",
        )


_LONGEST_LINE = 1500


def _shown(text: str) -> str:
    """Return a message fit for a terminal, for it may quote a file or a server: no control characters, and
    no line longer than anybody reads."""
    plain = ("".join(c if c.isprintable() else "?" for c in line) for line in text.split("\n"))
    return "\n".join(line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in plain)


def finished(call: Callable[[], object]) -> int:
    """Run a command; return its exit code, having told of an error on standard error."""
    try:
        call()
    except HpoError as error:
        sys.stderr.write(f"error: {_shown(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage, 130 interrupted."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    def command() -> None:
        _refuse_passwords(sys.argv[1:])
        configure(format_of(None))
        build()()

    sys.exit(finished(command))
