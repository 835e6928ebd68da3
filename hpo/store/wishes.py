"""Trials that a person wishes for: written by anybody, without the lease; granted by whoever holds it."""

import json

from sqlalchemy import Connection, func, select

from hpo.space import Candidate
from hpo.store import leases, reading
from hpo.store.journal import append
from hpo.store.schema import EVENT
from hpo.store.values import EventKind, Wish

_LAST = select(func.max(EVENT.c.id))
_WISHES = select(EVENT.c.id, EVENT.c.at, EVENT.c.payload).order_by(EVENT.c.id)


def wish(connection: Connection, name: str, candidate: Candidate, origin: str, at: float) -> None:
    key = leases.lock(connection, name).study_id
    payload = {"candidate": dict(candidate.values), "origin": origin}
    append(connection, key, EventKind.WISHED, at, payload=payload)


def wishes(connection: Connection, name: str, after: int) -> tuple[tuple[Wish, ...], int]:
    """Return the wishes after an event, and the newest event: asked again and again, it costs what is new."""
    key = reading.study_id(connection, name)
    newest: int = connection.scalar(_LAST.where(EVENT.c.study_id == key)) or after
    if newest <= after:
        return (), after
    query = _WISHES.where(
        EVENT.c.study_id == key,
        EVENT.c.id > after,
        EVENT.c.id <= newest,
        EVENT.c.kind == str(EventKind.WISHED),
    )
    found = []
    for number, at, text in connection.execute(query):
        payload = json.loads(text)
        found.append(Wish(number, at, Candidate.of(payload["candidate"]), payload["origin"]))
    return tuple(found), newest


def answered(connection: Connection, name: str) -> frozenset[int]:
    """Return the wishes that were granted or refused."""
    key = reading.study_id(connection, name)
    query = select(EVENT.c.payload).where(EVENT.c.study_id == key, EVENT.c.kind == str(EventKind.ANSWERED))
    return frozenset(json.loads(text)["wish"] for text in connection.scalars(query))
