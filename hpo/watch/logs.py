"""Structured logs of coordinators and workers: lines for people, or JSON, with ids of what they are about.

Every record carries the study, trial, attempt, worker and stage that its process and its call are at; none
leaves this process with a secret in it (`hpo.watch.redaction`). Standard logging underneath: libraries'
records come along, and nothing has to be handed around.
"""

import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from hpo.errors import UsageError

if TYPE_CHECKING:  # the store's packages are loaded when there is something to redact
    from hpo.watch.redaction import RedactingFilter

FORMAT_ENVIRONMENT = "HPO_LOG_FORMAT"
FILE_ENVIRONMENT = "HPO_LOG_FILE"
WORKER_ENVIRONMENT = "HPO_WORKER"

IDS = ("study", "trial", "attempt", "worker", "stage")
"""What a record may be about, in the order they are written."""

ASKED = "ask"
"""The event of a record that tells of an ask: with ``proposals``, how many it brought, and ``seconds``."""


class LogFormat(StrEnum):
    """How a record is written."""

    TEXT = "text"
    JSON = "json"


_process: dict[str, Any] = {}
_about: ContextVar[Mapping[str, Any]] = ContextVar("about")


def identify(**ids: Any) -> None:
    """Say what all records of this process are about: its study, its worker's name."""
    _process.update(ids)


@contextmanager
def about(**ids: Any) -> Iterator[None]:
    """Say what the records made inside are about: a trial, its attempt, a stage."""
    token = _about.set({**_about.get({}), **ids})
    try:
        yield
    finally:
        _about.reset(token)


def ids_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the ids of a record: its own, else those of its call, else those of the process."""
    here = {**_process, **_about.get({})}
    found = {name: getattr(record, name, here.get(name)) for name in IDS}
    return {name: value for name, value in found.items() if value is not None and value != ""}


def _time(record: logging.LogRecord) -> str:
    from hpo.watch.line import stamp

    return stamp(record.created)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time level logger message``, the ids, and what happened as ``event``."""

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        row |= ids_of(record)
        if event := getattr(record, "event", None):
            row["event"] = event
        row["message"] = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            row["exception"] = record.exc_text
        return json.dumps(row, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """A line for people: ``time LEVEL logger [study toy trial 3 attempt 1 worker worker-0] message``."""

    def format(self, record: logging.LogRecord) -> str:
        from hpo.watch.line import printable

        ids = " ".join(f"{name} {value}" for name, value in ids_of(record).items())
        where = f" [{ids}]" if ids else ""
        event = f"{record.event}: " if hasattr(record, "event") else ""
        line = f"{_time(record)} {record.levelname} {record.name}{where} {event}{record.getMessage()}"
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return printable(line) + (f"\n{record.exc_text}" if record.exc_text else "")


_FORMATTERS = {LogFormat.TEXT: TextFormatter, LogFormat.JSON: JsonFormatter}


class _LateRedaction(logging.Filter):
    """Redacts; what that takes is loaded and read at the first record, for most commands make none."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__()
        self._addresses = addresses

    @cached_property
    def inner(self) -> "RedactingFilter":
        from hpo.watch.redaction import RedactingFilter, Redactor, known_secrets

        return RedactingFilter(Redactor(known_secrets(self._addresses)))

    def filter(self, record: logging.LogRecord) -> bool:
        return self.inner.filter(record)


class _OwnFile(logging.Handler):
    """Appends to a file that its owner alone may read; one that was rotated away is made again."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._write("")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record) + "\n")
        except OSError:
            self.handleError(record)

    def _write(self, text: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def format_of(text: str | None) -> LogFormat:
    """Return the format that is asked for, else that of ``$HPO_LOG_FORMAT``, else lines for people.

    Raises:
        UsageError: there is no such format.
    """
    given = text or os.environ.get(FORMAT_ENVIRONMENT) or LogFormat.TEXT
    try:
        return LogFormat(given)
    except ValueError:
        raise UsageError(
            f"the log format is {given!r}",
            f"allowed: {', '.join(LogFormat)} (--log-format, {FORMAT_ENVIRONMENT})",
        ) from None


def configure(
    log_format: LogFormat = LogFormat.TEXT,
    file: Path | None = None,
    addresses: Sequence[str] = (),
    stream: TextIO | None = None,
    *,
    is_shown: bool = True,
) -> None:
    """Write this process's records to standard error and, with `file`, to the end of that file.

    Args:
        is_shown: what becomes of trials is shown in another way; as text, standard error then gets only
            warnings about other things. As JSON it gets everything, and so does a file of either format.
        addresses: of stores whose passwords must not be written, besides those in the environment.

    Raises:
        UsageError: the file cannot be written.
    """
    errors = logging.StreamHandler(stream)
    handlers: list[logging.Handler] = [errors]
    if log_format is LogFormat.TEXT and is_shown:
        errors.setLevel(logging.WARNING)
        errors.addFilter(lambda record: not hasattr(record, "event"))
    if file is not None:
        handlers.append(_opened(file))
    redaction = _LateRedaction(addresses)
    for handler in handlers:
        handler.addFilter(redaction)
        handler.setFormatter(_FORMATTERS[log_format]())
    reset()
    for handler in handlers:
        logging.getLogger().addHandler(handler)
    _handlers.extend(handlers)
    logging.getLogger("hpo").setLevel(logging.INFO)
    sys.excepthook = lambda kind, error, trace: _last_words(redaction, kind, error, trace)


_handlers: list[logging.Handler] = []


def reset() -> None:
    """Take back what `configure` has set up."""
    for handler in _handlers:
        logging.getLogger().removeHandler(handler)
        handler.close()
    _handlers.clear()
    logging.getLogger("hpo").setLevel(logging.NOTSET)
    sys.excepthook = sys.__excepthook__


def _last_words(
    redaction: _LateRedaction, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Tell of an error that nobody has caught, as Python would, without the secrets that it may quote."""
    text = "".join(traceback.format_exception(kind, error, trace))
    sys.stderr.write(redaction.inner.redactor.text(text))


def _opened(path: Path) -> logging.Handler:
    try:
        return _OwnFile(path)
    except OSError as error:
        raise UsageError(
            f"the log file {path} cannot be written: {error.strerror}", "name another with --log-file"
        ) from None


def configure_worker(study: str) -> None:
    """Write the records of a worker's process to its standard error, which Ray keeps by worker.

    In the format of ``$HPO_LOG_FORMAT``; the worker's name is that of ``$HPO_WORKER``.
    """
    try:
        log_format = format_of(None)
    except UsageError:  # said by the coordinator already; a worker must come up all the same
        log_format = LogFormat.TEXT
    configure(log_format, is_shown=False)
    identify(study=study, worker=os.environ.get(WORKER_ENVIRONMENT, ""))


def worker_environment(name: str) -> dict[str, str]:
    """Return what a worker's process must find in its environment to log as this one does."""
    chosen = os.environ.get(FORMAT_ENVIRONMENT)
    return {WORKER_ENVIRONMENT: name} | ({FORMAT_ENVIRONMENT: chosen} if chosen else {})
