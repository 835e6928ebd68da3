"""Is a store whole? What the database itself finds, what the rows say of each other, and what is stuck."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, select, text

from hpo.store import migrations
from hpo.store.schema import EVENT, FRONT, LEASE, MEASUREMENT, PLAN, STUDY, TRIAL
from hpo.store.values import EventKind, StudyState
from hpo.trial import TrialState


@dataclass(frozen=True)
class Fault:
    """Something about a store that is not as it should be."""

    study: str
    """Empty where it is no one study's."""
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.study}: {self.what}" if self.study else self.what

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)


_RESTORE = "restore the store from a backup; hpo storage backup makes one"
_REPORT = "this should never happen: report it, with a backup of the store (hpo storage backup)"


def faults(connection: Connection, now: float) -> list[Fault]:
    """Return all that is wrong with a store of this version's schema; `now`: seconds since the epoch."""
    found = list(_of_database(connection))
    if found:
        return found  # what a damaged file says of its rows is worth nothing
    found = list(_orphans(connection))
    for row in connection.execute(select(STUDY).order_by(STUDY.c.id)):
        found += [
            *_stuck(connection, row, now),
            *_numbers(connection, row),
            *_ends(connection, row),
            *_fronts(connection, row),
        ]
    return found


def _of_database(connection: Connection) -> Iterator[Fault]:
    if connection.dialect.name == "sqlite":
        for (said,) in connection.execute(text("PRAGMA integrity_check(20)")):
            if said != "ok":
                yield Fault("", f"SQLite finds the file damaged: {said}", _RESTORE)
    done = migrations.applied(connection)
    if sorted(done) != list(range(1, len(done) + 1)):
        yield Fault("", f"steps of the schema are missing among {sorted(done)}", _RESTORE)


def _orphans(connection: Connection) -> Iterator[Fault]:
    """Find rows without the row that they belong to, which foreign keys do not allow."""
    for table in (TRIAL, LEASE, FRONT, EVENT, PLAN, MEASUREMENT):
        lost = table.outerjoin(STUDY, STUDY.c.id == table.c.study_id)
        count = connection.scalar(select(func.count()).select_from(lost).where(STUDY.c.id.is_(None)))
        if count:
            yield Fault("", f"{count} rows of {table.name} belong to no study", _RESTORE)
    for table in (PLAN, MEASUREMENT):
        here = and_(TRIAL.c.study_id == table.c.study_id, TRIAL.c.number == table.c.trial)
        lost = table.outerjoin(TRIAL, here)
        count = connection.scalar(select(func.count()).select_from(lost).where(TRIAL.c.number.is_(None)))
        if count:
            yield Fault("", f"{count} rows of {table.name} belong to no trial", _RESTORE)


def _stuck(connection: Connection, study: Any, now: float) -> Iterator[Fault]:
    """Find what runs on paper only: its coordinator or its worker has not been heard of for too long."""
    lease = connection.execute(select(LEASE).where(LEASE.c.study_id == study.id)).one_or_none()
    if lease is None:
        yield Fault(study.name, "it has no row of its lease", _RESTORE)
        return
    again = f"hpo resume {study.name} takes it over and goes on"
    alive = lease.owner is not None and lease.expires_at > now
    if lease.owner is not None and not alive:
        yield Fault(
            study.name,
            f"its coordinator {lease.owner} has not been heard of since its lease ran out "
            f"{now - lease.expires_at:.0f} s ago",
            again,
        )
    elif lease.owner is None and study.state == StudyState.RUNNING:
        yield Fault(study.name, "it is running, and nobody holds its lease", again)
    running = and_(TRIAL.c.study_id == study.id, TRIAL.c.state == str(TrialState.RUNNING))
    for number, until in connection.execute(select(TRIAL.c.number, TRIAL.c.lease_until).where(running)):
        if not alive:
            yield Fault(study.name, f"trial {number} is running, and no coordinator is", again)
        elif until is not None and until < now:
            yield Fault(
                study.name,
                f"trial {number} is running, and its worker has not been heard of since its lease ran out "
                f"{now - until:.0f} s ago",
                "its coordinator gives it to another worker by itself; if it does not: "
                f"hpo cancel {study.name}, then {again}",
            )


def _numbers(connection: Connection, study: Any) -> Iterator[Fault]:
    here = TRIAL.c.study_id == study.id
    count, last = connection.execute(select(func.count(), func.max(TRIAL.c.number)).where(here)).one()
    if count and last != count - 1:
        yield Fault(study.name, f"its {count} trials are not numbered 0 to {count - 1}", _REPORT)
    budget = json.loads(study.document).get("budget", {}).get("trials")
    if budget is not None and count > budget:
        yield Fault(study.name, f"it has {count} trials, and a budget of {budget}", _REPORT)
    unplanned = TRIAL.outerjoin(
        PLAN, and_(PLAN.c.study_id == TRIAL.c.study_id, PLAN.c.trial == TRIAL.c.number)
    )
    for (number,) in connection.execute(
        select(TRIAL.c.number).select_from(unplanned).where(here, PLAN.c.trial.is_(None))
    ):
        yield Fault(study.name, f"trial {number} has no plan", _REPORT)


_ENDED = {
    str(TrialState.COMPLETED): (str(EventKind.COMPLETED), str(EventKind.REVISED)),
    str(TrialState.STOPPED): (str(EventKind.STOPPED),),
    str(TrialState.FAILED): (str(EventKind.FAILED),),
}
"""State of a trial -> the events that lead to it."""


def _ends(connection: Connection, study: Any) -> Iterator[Fault]:
    """Find trials that are over without an event that says so, or that ended twice in one attempt."""
    kinds = sorted({kind for group in _ENDED.values() for kind in group})
    told = select(EVENT.c.trial, EVENT.c.attempt, EVENT.c.kind).where(
        EVENT.c.study_id == study.id, EVENT.c.kind.in_(kinds)
    )
    ends = Counter((trial, attempt, kind) for trial, attempt, kind in connection.execute(told))
    for (number, attempt, kind), times in ends.items():
        if times > 1:
            yield Fault(study.name, f"attempt {attempt} of trial {number} was {kind} {times} times", _REPORT)
    over = select(TRIAL.c.number, TRIAL.c.attempt, TRIAL.c.state, TRIAL.c.finished_at).where(
        TRIAL.c.study_id == study.id, TRIAL.c.state.in_(sorted(_ENDED))
    )
    for number, attempt, state, finished_at in connection.execute(over):
        if not any((number, attempt, kind) in ends for kind in _ENDED[state]):
            yield Fault(study.name, f"trial {number} is {state}, and no event tells of it", _REPORT)
        if finished_at is None:
            yield Fault(study.name, f"trial {number} is {state}, and it is not known since when", _REPORT)


def _fronts(connection: Connection, study: Any) -> Iterator[Fault]:
    """Find a latest front that names trials which are not there."""
    query = (
        select(FRONT.c.revision, FRONT.c.members)
        .where(FRONT.c.study_id == study.id)
        .order_by(FRONT.c.revision.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return
    there = set(connection.scalars(select(TRIAL.c.number).where(TRIAL.c.study_id == study.id)))
    if gone := sorted(set(json.loads(row.members)) - there):
        yield Fault(study.name, f"its front names trials that are not there: {gone}", _REPORT)
