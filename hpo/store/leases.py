"""The right to write a study: taken, renewed, given back, and asked for before every write.

Each study has one lease row. Whoever writes the study locks that row first (PostgreSQL: SELECT ... FOR
UPDATE; SQLite: the whole file, by BEGIN IMMEDIATE), so its writers take turns, whatever they write.
A lease that has run out still counts until another takes it: it is the epoch that fences, not the clock.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, select, update

from hpo.errors import LeaseLost, StoreError
from hpo.store import reading
from hpo.store.journal import append
from hpo.store.rows import AnyRow, lease_from
from hpo.store.schema import LEASE, STUDY
from hpo.store.values import EventKind, Lease

_COLUMNS = (LEASE.c.owner, LEASE.c.epoch, LEASE.c.expires_at)
_OF_STUDY = STUDY.c.name == bindparam("name")
_HOLDER = select(*_COLUMNS).join(STUDY).where(_OF_STUDY)
_LOCK = select(LEASE.c.study_id, *_COLUMNS).join(STUDY).where(_OF_STUDY).with_for_update(of=LEASE)


def lock(connection: Connection, name: str) -> AnyRow:
    """Wait for the study's other writers; return ``study_id, owner, epoch, expires_at``.

    Raises:
        NotFound: there is no such study.
    """
    row = _locked(connection, name)
    if row is None:
        raise reading.no_such_study(connection, name)
    return row


def held_study(connection: Connection, lease: Lease) -> int:
    """Lock the study of a lease that is still good, and return its row's id.

    Raises:
        LeaseLost: another coordinator has taken the study since, or it was given back or deleted.
    """
    row = _locked(connection, lease.study)
    if row is not None and (row.owner, row.epoch) == (lease.owner, lease.epoch):
        found: int = row.study_id
        return found
    raise _lost(lease, row)


def holder(connection: Connection, name: str) -> Lease | None:
    row = connection.execute(_HOLDER, {"name": name}).one_or_none()
    if row is None:
        raise reading.no_such_study(connection, name)
    return lease_from(name, row)


def acquire(
    connection: Connection, name: str, owner: str, seconds: float, at: float, replacing: str | None
) -> Lease:
    row = lock(connection, name)
    refuse_if_held(name, row, at, unless=(owner, replacing))
    lease = Lease(name, owner, row.epoch + 1, at + seconds)
    values = {"owner": owner, "epoch": lease.epoch, "expires_at": lease.expires_at}
    connection.execute(update(LEASE).where(LEASE.c.study_id == row.study_id).values(values))
    payload = {"action": "acquired", **values, "previous_owner": row.owner}
    append(connection, row.study_id, EventKind.LEASE, at, payload=payload)
    return lease


def refuse_if_held(name: str, row: AnyRow, at: float, unless: tuple[str | None, ...] = ()) -> None:
    """Refuse what only the holder may do, while there is one (not of `unless`) with time left."""
    if row.owner is None or row.owner in unless or row.expires_at <= at:
        return
    until = datetime.fromtimestamp(row.expires_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    raise StoreError(
        f"study {name!r} is being run by {row.owner}; its lease expires at {until}, "
        f"in {row.expires_at - at:.0f} s, unless renewed",
        f"stop it first (hpo stop {name}), or wait until the lease has expired if it is dead",
    )


def renew(connection: Connection, lease: Lease, seconds: float, at: float) -> Lease:
    study_id = held_study(connection, lease)
    expires_at = at + seconds
    connection.execute(update(LEASE).where(LEASE.c.study_id == study_id).values(expires_at=expires_at))
    return Lease(lease.study, lease.owner, lease.epoch, expires_at)


def release(connection: Connection, lease: Lease, at: float) -> None:
    study_id = held_study(connection, lease)
    connection.execute(
        update(LEASE).where(LEASE.c.study_id == study_id).values(owner=None, expires_at=at)
    )  # the epoch stays: the next holder's must be higher
    payload = {"action": "released", "owner": lease.owner, "epoch": lease.epoch}
    append(connection, study_id, EventKind.LEASE, at, payload=payload)


def _locked(connection: Connection, name: str) -> AnyRow | None:
    return connection.execute(_LOCK, {"name": name}).one_or_none()


def _lost(lease: Lease, row: AnyRow | None) -> LeaseLost:
    if row is None:
        now = "it is no longer in the store"
    elif row.owner is None:
        now = "it was given back since"
    else:
        now = f"{row.owner} holds it now (epoch {row.epoch})"
    return LeaseLost(
        f"{lease.owner} (epoch {lease.epoch}) may no longer write study {lease.study!r}: {now}",
        f"see hpo status {lease.study}; nothing was written",
    )
