"""The command that reads a study's log: logs. It works while no coordinator runs."""

import json
import re
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import Name, Storage, emit
from hpo.errors import UsageError

if TYPE_CHECKING:  # hpo --help must not load the store
    from hpo.watch.feed import Feed
    from hpo.watch.line import Line

_POLL_S = 0.5
_LAST_LOOKS = 2
"""How often the log of a study that is over is looked at: what ended it may be written just after."""

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)")
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def logs(
    name: Name,
    trial: Annotated[int | None, typer.Argument(help="Number of a trial. Default: the whole study.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what happens next, until the study is over.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="From then on: 10m, 2h, 1d ago, or 2026-01-31T12:00.")
    ] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Only the last so many lines to begin with.")
    ] = None,
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print what has happened to a study, or to one of its trials: time, event, trial, worker, message.

    Example: hpo logs quickstart 7 --since 2h --follow
    """
    from hpo.store.store import Store
    from hpo.watch.feed import Feed
    from hpo.watch.redaction import Redactor, known_secrets
    from hpo.watch.standing import is_over

    begin = 0.0 if since is None else _time(since, time.time())
    with Store.open(storage, read_only=True) as store:
        feed = Feed(store, name, trial, Redactor(known_secrets([storage or ""])))
        told = _since(feed, begin)
        for line in told if tail is None else deque(told, maxlen=tail):
            _print(line, as_json)
        looks = 0
        while follow and looks < _LAST_LOOKS:
            time.sleep(_POLL_S)
            over = is_over(store.study(name), store.holder(name), time.time())
            looks = looks + 1 if over else 0
            for line in _since(feed, begin):
                _print(line, as_json)


def _since(feed: "Feed", begin: float) -> Iterator["Line"]:
    return (line for line in feed.read() if line.at >= begin)


def _print(line: "Line", as_json: bool) -> None:
    emit(json.dumps(line.to_mapping(), ensure_ascii=False) if as_json else line.text())


def _time(text: str, now: float) -> float:
    """Return a time in seconds since the epoch.

    Raises:
        UsageError: it is neither a length of time nor a date.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return now - float(ago[1]) * _UNITS[ago[2]]
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"--since {text!r} is no time",
            "write how long ago (30s, 10m, 2h, 1d) or a date: 2026-01-31T12:00",
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
