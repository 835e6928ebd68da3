"""The trials of a study as a table to take home: CSV, JSON or Parquet, one row a trial.

Columns, in this order: number, origin, state, cause, message, standing, attempt, seconds, joules, asked_at,
started_at, finished_at (ISO 8601, UTC), plan; ``param.NAME`` for every parameter; and for every metric NAME,
``NAME.spread``, ``NAME.unit``, ``NAME.source``, ``NAME.repeats``, ``NAME.device``. What a trial does not have
is empty (null in JSON). Numbers are written so that they read back to the last bit.
"""

import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dashboards.front import standing_of
from dashboards.source import Snapshot
from hpo.errors import Unsupported, UsageError
from hpo.trial import Trial

PARAMETER = "param."
"""Before the name of a parameter, so that none is taken for another column."""

_FORMULA = re.compile(r"^\s*[=+\-@\t\r\n＝＋－＠]")
"""How a text begins that a spreadsheet might run (OWASP, "CSV Injection")."""


class Download(NamedTuple):
    """A file to send."""

    content: bytes
    media_type: str
    name: str


def table_of(now: Snapshot) -> pd.DataFrame:
    """Return the trials of a study, one row a trial in order of number; see the head of this module."""
    trials = now.trials
    standings = standing_of(now.record.study.objectives, trials)
    columns: dict[str, pd.Series[Any]] = {
        "number": pd.Series([t.number for t in trials], dtype="int64"),
        "origin": _texts([t.origin for t in trials]),
        "state": _texts([str(t.state) for t in trials]),
        "cause": _texts([None if t.cause is None else str(t.cause) for t in trials]),
        "message": _texts([t.message or None for t in trials]),
        "standing": _texts([_plain(standings.get(t.number)) for t in trials]),
        "attempt": pd.Series([t.attempt for t in trials], dtype="int64"),
        "seconds": _numbers([t.seconds if t.stages else None for t in trials]),
        "joules": _numbers([t.joules for t in trials]),
        "asked_at": _texts([_moment(t.created_at or None) for t in trials]),
        "started_at": _texts([_moment(t.started_at) for t in trials]),
        "finished_at": _texts([_moment(t.finished_at) for t in trials]),
        "plan": _texts([t.plan_hash or None for t in trials]),
    }
    return pd.DataFrame({**columns, **_parameters(trials), **_metrics(now)})


def _plain(text: object) -> str | None:
    return None if text is None else str(text)


def _moment(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _texts(values: Sequence[str | None]) -> "pd.Series[Any]":
    # An error's words may hold half of a surrogate pair, which no file can.
    sound = [None if text is None else text.encode("utf-8", "replace").decode() for text in values]
    return pd.Series(sound, dtype="string")


def _numbers(values: Sequence[float | None]) -> "pd.Series[Any]":
    return pd.Series(values, dtype="Float64")


def _parameters(trials: Sequence[Trial]) -> "dict[str, pd.Series[Any]]":
    names = sorted({name for trial in trials for name in trial.candidate.values})
    return {f"{PARAMETER}{name}": _values([t.candidate.values.get(name) for t in trials]) for name in names}


def _values(values: Sequence[object]) -> "pd.Series[Any]":
    """Return the values of a parameter in the narrowest type that holds all of them."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int}:
        return pd.Series(values, dtype="Int64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="Float64")
    return _texts([_plain(value) for value in values])


def _metrics(now: Snapshot) -> "dict[str, pd.Series[Any]]":
    """Return the columns of every metric, the objectives' first."""
    objectives = [o.metric for o in now.record.study.objectives]
    last = [{m.metric: m for m in trial.measurements} for trial in now.trials]
    others = sorted({name for found in last for name in found}.difference(objectives))
    columns: dict[str, pd.Series[Any]] = {}
    for name in (*objectives, *others):
        found = [of.get(name) for of in last]
        columns[name] = _numbers([None if m is None else m.value for m in found])
        columns[f"{name}.spread"] = _numbers([None if m is None else m.spread for m in found])
        columns[f"{name}.unit"] = _texts([None if m is None else m.unit for m in found])
        columns[f"{name}.source"] = _texts([None if m is None else str(m.source) for m in found])
        repeats = [None if m is None else m.repeats for m in found]
        columns[f"{name}.repeats"] = pd.Series(repeats, dtype="Int64")
        columns[f"{name}.device"] = _texts([None if m is None else m.device or None for m in found])
    return columns


def encoded(now: Snapshot, kind: str) -> Download:
    """Return the table of a study as a file of a kind.

    Raises:
        UsageError: it is no kind of `KINDS`.
        Unsupported: what writes this kind is not installed.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no {kind!r} of a study's trials", f"allowed: {', '.join(KINDS)}")
    media_type, write = KINDS[kind]
    return Download(write(table_of(now)), media_type, f"{now.record.study.name}-trials.{kind}")


def kind_of(path: Path) -> str:
    """Return the kind of file that the ending of a path asks for.

    Raises:
        UsageError: it ends otherwise.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in KINDS:
        endings = ", ".join(f".{known}" for known in KINDS)
        raise UsageError(f"{path} does not say what to write", f"let it end in one of {endings}")
    return kind


def _csv(table: pd.DataFrame) -> bytes:
    safe = table.rename(columns=_harmless)
    for place, dtype in enumerate(safe.dtypes):
        if isinstance(dtype, pd.StringDtype):
            column = safe.iloc[:, place].map(_harmless, na_action="ignore")
            safe.isetitem(place, column.to_numpy(dtype=object))
    return safe.to_csv(index=False, lineterminator="\r\n").encode()


def _harmless(text: str) -> str:
    """Return text that no spreadsheet runs: what looks like a formula gets an apostrophe before it."""
    return f"'{text}" if _FORMULA.match(text) else text


def _json(table: pd.DataFrame) -> bytes:
    # Not pandas' own, which writes 15 digits of a number at most.
    plain = table.astype(object).where(table.notna(), None)
    rows = plain.to_dict(orient="records")
    return (json.dumps(rows, indent=1, ensure_ascii=False, default=_number) + "\n").encode()


def _number(value: Any) -> Any:
    """Return one of numpy's numbers as Python's."""
    return value.item()


def _parquet(table: pd.DataFrame) -> bytes:
    if find_spec("pyarrow") is None:  # asked for here, so that its absence is told in our words
        raise Unsupported(
            "Parquet cannot be written: pyarrow is not installed",
            "pip install pyarrow, or write .csv or .json",
        )
    file = io.BytesIO()
    table.to_parquet(file, engine="pyarrow", index=False)
    return file.getvalue()


KINDS: Mapping[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "csv": ("text/csv; charset=utf-8", _csv),
    "json": ("application/json", _json),
    "parquet": ("application/vnd.apache.parquet", _parquet),
}
"""Ending of a file -> its media type, and what writes it."""
