"""Questions to the store. Each function is handed a connection, and answers with values."""

import gc
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from hpo.errors import NotFound, did_you_mean
from hpo.healing_curve import HealingCurve
from hpo.store.rows import (
    FRONT_COLUMNS,
    MEASUREMENT_COLUMNS,
    TRIAL_COLUMNS,
    AnyRow,
    event_from,
    front_from,
    layers_from,
    trial_from,
)
from hpo.store.schema import EVENT, FRONT, MEASUREMENT, PLAN, STUDY, TRIAL
from hpo.store.spending import Work
from hpo.store.values import Event, EventKind, Front, Request, StudyRecord, StudyState, TrialLease
from hpo.study import Study
from hpo.trial import LayerRecord, Measurement, StageTime, Trial, TrialState


def study_id(connection: Connection, name: str) -> int:
    """Return the row of a study.

    Raises:
        NotFound: there is none of that name.
    """
    found: int | None = connection.scalar(select(STUDY.c.id).where(STUDY.c.name == name))
    if found is None:
        raise no_such_study(connection, name)
    return found


def no_such_study(connection: Connection, name: str) -> NotFound:
    names = connection.scalars(select(STUDY.c.name)).all()
    hint = did_you_mean(name, names) if names else "the store is empty; launch one: hpo launch STUDY"
    return NotFound(f"there is no study {name!r} in the store", hint)


def study(connection: Connection, name: str) -> StudyRecord:
    row = connection.execute(select(STUDY).where(STUDY.c.name == name)).one_or_none()
    if row is None:
        raise no_such_study(connection, name)
    return StudyRecord(
        study=Study.from_mapping(json.loads(row.document)),
        state=StudyState(row.state),
        message=row.message,
        requested=Request(row.requested),
        created_at=row.created_at,
        updated_at=row.updated_at,
        hours=row.hours,
        environment=json.loads(row.environment),
    )


def requested(connection: Connection, name: str) -> Request:
    found = connection.scalar(select(STUDY.c.requested).where(STUDY.c.name == name))
    if found is None:
        raise no_such_study(connection, name)
    return Request(found)


def trials(connection: Connection, name: str) -> tuple[Trial, ...]:
    key = study_id(connection, name)
    with _uncollected():
        return load(connection, key)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Make many lasting values without the cycle collector walking over them each time a few more are.

    For 10,000 trials of 6 measurements: 0.4 s instead of 0.6 to 1.0 s.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def trials_since(connection: Connection, name: str, event_id: int) -> tuple[tuple[Trial, ...], int]:
    key = study_id(connection, name)
    news = and_(EVENT.c.study_id == key, EVENT.c.id > event_id)
    newest = connection.scalar(select(func.max(EVENT.c.id)).where(news))
    if newest is None:
        return (), event_id
    changed = select(EVENT.c.trial).where(news, EVENT.c.trial.is_not(None))
    return load(connection, key, TRIAL.c.number.in_(changed)), newest


def trial(connection: Connection, name: str, number: int) -> Trial:
    key = study_id(connection, name)
    found = load(connection, key, TRIAL.c.number == number)
    if not found:
        raise no_such_trial(connection, key, name, number)
    return found[0]


def no_such_trial(connection: Connection, study_id: int, name: str, number: int) -> NotFound:
    last = connection.scalar(select(func.max(TRIAL.c.number)).where(TRIAL.c.study_id == study_id))
    hint = "it has no trials yet" if last is None else f"its trials are numbered 0 to {last}"
    return NotFound(f"study {name!r} has no trial {number}", hint)


# Made once, for the sake of the many small reads: making a query costs more than SQLite's answer.
_TRIALS = select(*TRIAL_COLUMNS).order_by(TRIAL.c.number)
_MEASUREMENTS = (
    select(*MEASUREMENT_COLUMNS)
    .join(
        TRIAL,
        and_(
            MEASUREMENT.c.study_id == TRIAL.c.study_id,
            MEASUREMENT.c.trial == TRIAL.c.number,
            MEASUREMENT.c.attempt == TRIAL.c.attempt,
        ),
    )
    .order_by(MEASUREMENT.c.trial, MEASUREMENT.c.position)
)


def load(
    connection: Connection, study_id: int, which: ColumnElement[bool] | None = None
) -> tuple[Trial, ...]:
    """Return the trials of a study that fulfil `which`, in order of number, with two queries."""
    chosen = TRIAL.c.study_id == study_id if which is None else and_(TRIAL.c.study_id == study_id, which)
    rows = connection.execute(_TRIALS.where(chosen)).all()
    if not rows:
        return ()
    measurements = _by_trial(connection.execute(_MEASUREMENTS.where(chosen)))
    return tuple(trial_from(row, measurements[row[0]]) for row in rows)


def _by_trial(rows: Iterable[AnyRow]) -> defaultdict[int, list[Measurement]]:
    measurements: defaultdict[int, list[Measurement]] = defaultdict(list)
    for row in rows:
        measurements[row[0]].append(Measurement(*row[1:]))
    return measurements


def plan(connection: Connection, name: str, number: int) -> tuple[LayerRecord, ...]:
    key = study_id(connection, name)
    text = connection.scalar(select(PLAN.c.layers).where(PLAN.c.study_id == key, PLAN.c.trial == number))
    if text is None:
        raise no_such_trial(connection, key, name, number)
    return layers_from(text)


def fronts(connection: Connection, name: str) -> tuple[Front, ...]:
    key = study_id(connection, name)
    query = select(*FRONT_COLUMNS).where(FRONT.c.study_id == key).order_by(FRONT.c.revision)
    return tuple(map(front_from, connection.execute(query)))


def front(connection: Connection, name: str) -> Front | None:
    key = study_id(connection, name)
    query = select(*FRONT_COLUMNS).where(FRONT.c.study_id == key).order_by(FRONT.c.revision.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else front_from(row)


_EVENT = (EVENT.c.id, EVENT.c.at, EVENT.c.kind, EVENT.c.trial, EVENT.c.attempt, EVENT.c.payload)


def events(connection: Connection, name: str, after: int, limit: int | None) -> tuple[Event, ...]:
    key = study_id(connection, name)
    query = (
        select(*_EVENT).where(EVENT.c.study_id == key, EVENT.c.id > after).order_by(EVENT.c.id).limit(limit)
    )
    return tuple(map(event_from, connection.execute(query)))


def events_of(connection: Connection, name: str, kind: EventKind) -> tuple[Event, ...]:
    here = and_(EVENT.c.study_id == study_id(connection, name), EVENT.c.kind == str(kind))
    return tuple(map(event_from, connection.execute(select(*_EVENT).where(here).order_by(EVENT.c.id))))


def latest(connection: Connection, name: str, kind: EventKind) -> Event | None:
    key = study_id(connection, name)
    query = (
        select(*_EVENT)
        .where(EVENT.c.study_id == key, EVENT.c.kind == str(kind))
        .order_by(EVENT.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else event_from(row)


_SEQUELS = (str(EventKind.REVISED), str(EventKind.REOPENED))


def lost_work(connection: Connection, name: str) -> Work:
    """Return the stages of attempts before a trial's latest, and those that a worker took with it."""
    key = study_id(connection, name)
    of_trial = and_(TRIAL.c.study_id == EVENT.c.study_id, TRIAL.c.number == EVENT.c.trial)
    finished = or_(
        and_(EVENT.c.kind == str(EventKind.STAGE_DONE), EVENT.c.attempt < TRIAL.c.attempt),
        EVENT.c.kind.in_(_SEQUELS),  # with the last stage of the attempt before
    )
    broken = EVENT.c.kind.in_([str(EventKind.LOST), str(EventKind.REQUEUED)])
    query = (
        select(EVENT.c.kind, EVENT.c.payload)
        .join(TRIAL, of_trial)
        .where(EVENT.c.study_id == key, or_(finished, broken))
    )
    work = Work()
    for _, text in connection.execute(query):
        payload = json.loads(text)
        if "stage" in payload:
            work += Work.of([StageTime(payload["stage"], payload["seconds"], payload.get("joules"))])
        elif "seconds" in payload:
            work += Work.lost(payload["seconds"])
    return work


def trial_leases(connection: Connection, name: str) -> tuple[TrialLease, ...]:
    key = study_id(connection, name)
    running = and_(TRIAL.c.study_id == key, TRIAL.c.state == str(TrialState.RUNNING))
    rows = connection.execute(select(*_TRIAL_LEASE).where(running).order_by(TRIAL.c.number))
    return tuple(TrialLease(*row) for row in rows)


_TRIAL_LEASE = (TRIAL.c.number, TRIAL.c.attempt, TRIAL.c.worker, TRIAL.c.epoch, TRIAL.c.lease_until)


def trial_events(connection: Connection, name: str, number: int) -> tuple[Event, ...]:
    key = study_id(connection, name)
    of_trial = and_(EVENT.c.study_id == key, EVENT.c.trial == number)
    rows = connection.execute(select(*_EVENT).where(of_trial).order_by(EVENT.c.id)).all()
    if not rows and connection.scalar(_attempt(key, number)) is None:
        raise no_such_trial(connection, key, name, number)
    return tuple(map(event_from, rows))


def _attempt(study_id: int, number: int) -> Select[tuple[int]]:
    return select(TRIAL.c.attempt).where(TRIAL.c.study_id == study_id, TRIAL.c.number == number)


def healing_curve(connection: Connection, name: str, number: int) -> HealingCurve | None:
    """Return the last curve among the events of a trial's latest attempt: each holds all before it."""
    events = trial_events(connection, name, number)
    latest: Any = connection.scalar(_attempt(study_id(connection, name), number))
    told = [e.payload["curve"] for e in events if e.attempt == latest and e.payload.get("curve")]
    return HealingCurve.from_mapping(told[-1]) if told else None
