"""The append-only journal of events."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from hpo.store.rows import to_json
from hpo.store.schema import EVENT, STUDY
from hpo.store.values import EventKind

_APPEND = insert(EVENT).inline()
_TOUCH = update(STUDY).where(STUDY.c.id == bindparam("key"))


def append(
    connection: Connection,
    study_id: int,
    kind: EventKind,
    at: float,
    trial: int | None = None,
    attempt: int | None = None,
    payload: Mapping[str, Any] | None = None,
) -> None:
    """Record that something happened to a study; its row shows when something last did."""
    row = {"study_id": study_id, "at": at, "kind": str(kind), "trial": trial, "attempt": attempt}
    connection.execute(_APPEND, row | {"payload": to_json(dict(payload or {}))})
    connection.execute(_TOUCH, {"key": study_id, "updated_at": at})
