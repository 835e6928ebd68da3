"""The list of studies, from five queries whatever the number of studies and trials."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    Integer,
    Subquery,
    TableValuedAlias,
    and_,
    case,
    cast,
    exists,
    func,
    or_,
    select,
    true,
)

from hpo.metric import METRICS
from hpo.store.rows import AnyRow
from hpo.store.schema import FRONT, LEASE, MEASUREMENT, STUDY, TRIAL
from hpo.store.values import StudyState, StudySummary
from hpo.trial import TrialState

COURSE_POINTS = 32
"""About how many of a study's fronts a summary tells of: every n-th and the last."""


@dataclass(frozen=True)
class _Course:
    """The fronts of a study, thinned."""

    points: tuple[tuple[int, float], ...]
    hypervolume: float | None
    size: int


def studies(connection: Connection) -> tuple[StudySummary, ...]:
    """Return a summary of each study, oldest first."""
    states, causes = _counts(connection)
    workers, best = _workers(connection), _best(connection)
    courses = _courses(connection)
    rows = connection.execute(
        select(STUDY, LEASE.c.owner, LEASE.c.expires_at)
        .join(LEASE, LEASE.c.study_id == STUDY.c.id)
        .order_by(STUDY.c.created_at, STUDY.c.id)
    )
    nothing = _Course((), None, 0)
    return tuple(
        _summary(
            row,
            states[row.id],
            causes[row.id],
            workers.get(row.id, 0),
            best[row.id],
            courses.get(row.id, nothing),
        )
        for row in rows
    )


def _summary(
    row: AnyRow,
    states: dict[str, int],
    causes: dict[str, int],
    workers: int,
    best: Mapping[str, float],
    course: _Course,
) -> StudySummary:
    # The stored document as it is: validating it would cost more than everything else here.
    document = json.loads(row.document)
    objectives = tuple(objective["metric"] for objective in document["objectives"])
    return StudySummary(
        name=row.name,
        question=document["question"],
        state=StudyState(row.state),
        message=row.message,
        counts=states,
        causes=causes,
        budget_trials=document["budget"]["trials"],
        budget_hours=document["budget"].get("hours"),
        hours=row.hours,
        objectives=objectives,
        best={name: best[name] for name in objectives if name in best},
        hypervolume=course.hypervolume,
        course=course.points,
        front_size=course.size,
        workers=workers,
        lease_until=None if row.owner is None else row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


_Counts = defaultdict[int, dict[str, int]]


def _counts(connection: Connection) -> tuple[_Counts, _Counts]:
    """Return, by study, how many trials are in each state, and how many failed of each cause."""
    states: _Counts = defaultdict(dict)
    causes: _Counts = defaultdict(dict)
    columns = (TRIAL.c.study_id, TRIAL.c.state, TRIAL.c.cause)
    for study_id, state, cause, count in connection.execute(
        select(*columns, func.count()).group_by(*columns)
    ):
        states[study_id][state] = states[study_id].get(state, 0) + count
        if cause is not None:
            causes[study_id][cause] = count
    return states, causes


def _workers(connection: Connection) -> dict[int, int]:
    """Return, by study, how many workers run a trial."""
    # From the studies, so that each is a look into the index by study and state.
    runs = and_(TRIAL.c.study_id == STUDY.c.id, TRIAL.c.state == str(TrialState.RUNNING))
    query = select(STUDY.c.id, func.count(TRIAL.c.worker.distinct())).join(TRIAL, runs).group_by(STUDY.c.id)
    return {row[0]: row[1] for row in connection.execute(query)}


def _last() -> Subquery:
    revision = func.max(FRONT.c.revision).label("revision")
    return select(FRONT.c.study_id, revision).group_by(FRONT.c.study_id).subquery()


def _courses(connection: Connection) -> dict[int, _Course]:
    """Return, by study, how the hypervolume of its fronts went, and what the last one has."""
    last = _last()
    is_last = FRONT.c.revision == last.c.revision
    step = (last.c.revision + (COURSE_POINTS - 1)) // COURSE_POINTS
    query = (
        select(FRONT.c.study_id, FRONT.c.trials, FRONT.c.hypervolume, case((is_last, FRONT.c.members)))
        .join(last, FRONT.c.study_id == last.c.study_id)
        .where(or_(is_last, FRONT.c.revision % step == 0))
        .order_by(FRONT.c.study_id, FRONT.c.revision)
    )
    rows: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for study_id, *row in connection.execute(query):
        rows[study_id].append(tuple(row))
    return {study_id: _course(found) for study_id, found in rows.items()}


def _course(rows: list[tuple[Any, ...]]) -> _Course:
    _, hypervolume, members = rows[-1]
    points = tuple((trials, share) for trials, share, _ in rows if share is not None)
    return _Course(points, hypervolume, len(json.loads(members)))


def _best(connection: Connection) -> defaultdict[int, dict[str, float]]:
    """Return, by study, the best value of each metric among the members of the last front."""
    last, member = _last(), _elements(connection)
    later = MEASUREMENT.alias("later")
    again = exists().where(
        *(later.c[name] == MEASUREMENT.c[name] for name in ("study_id", "trial", "attempt", "metric")),
        later.c.position > MEASUREMENT.c.position,
    )
    at_front = and_(FRONT.c.study_id == last.c.study_id, FRONT.c.revision == last.c.revision)
    is_member = and_(TRIAL.c.study_id == FRONT.c.study_id, TRIAL.c.number == cast(member.c.value, Integer))
    of_trial = and_(
        MEASUREMENT.c.study_id == TRIAL.c.study_id,
        MEASUREMENT.c.trial == TRIAL.c.number,
        MEASUREMENT.c.attempt == TRIAL.c.attempt,
    )
    keys = (FRONT.c.study_id, MEASUREMENT.c.metric)
    query = (
        select(*keys, func.min(MEASUREMENT.c.value), func.max(MEASUREMENT.c.value))
        .select_from(last)
        .join(FRONT, at_front)
        # Outer joins keep this order: without statistics SQLite would go through all measurements of a study.
        .join(member, true(), isouter=True)
        .join(TRIAL, is_member, isouter=True)
        .join(MEASUREMENT, of_trial, isouter=True)
        .where(~again)
        .group_by(*keys)
    )
    best: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for study_id, metric, lowest, highest in connection.execute(query):
        if metric in METRICS:
            best[study_id][metric] = lowest if METRICS[metric].better == "lower" else highest
    return best


def _elements(connection: Connection) -> TableValuedAlias:
    """Return the members of a front as rows of a column ``value``; each database has its own word for it."""
    if connection.dialect.name == "sqlite":
        return func.json_each(FRONT.c.members).table_valued("value", name="member")
    return func.json_array_elements_text(cast(FRONT.c.members, JSON)).table_valued("value", name="member")
