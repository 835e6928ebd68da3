"""A study as it stands on each device that its trials were measured on.

A trial that was measured on several has each one's figures in the attempts that ran there. Nothing but what
the device decides is kept apart: a perplexity is the same on all of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, func, select

from hpo.metric import METRICS, Source
from hpo.store import reading
from hpo.store.rows import MEASUREMENT_COLUMNS
from hpo.store.schema import MEASUREMENT
from hpo.trial import Measurement, Trial, TrialState

_OF_DEVICE = sorted(name for name, metric in METRICS.items() if metric.of_device)


@dataclass(frozen=True)
class MeasuredDevice:
    """A device that figures of a study come from."""

    name: str
    """Its fingerprint."""
    trials: int
    """How many trials were measured on it."""


def devices(connection: Connection, name: str) -> tuple[MeasuredDevice, ...]:
    """Return the devices that timings of a study were taken on, the one of its first trials first."""
    key = reading.study_id(connection, name)
    here = and_(
        MEASUREMENT.c.study_id == key,
        MEASUREMENT.c.device != "",
        MEASUREMENT.c.source == str(Source.MEASURED),
        MEASUREMENT.c.metric.in_(_OF_DEVICE),
    )
    count, attempt = func.count(MEASUREMENT.c.trial.distinct()), func.min(MEASUREMENT.c.attempt)
    query = (
        select(MEASUREMENT.c.device, count)
        .where(here)
        .group_by(MEASUREMENT.c.device)
        .order_by(attempt, count.desc(), MEASUREMENT.c.device)
    )
    return tuple(MeasuredDevice(*row) for row in connection.execute(query))


def trials_on(connection: Connection, name: str, device: str) -> tuple[Trial, ...]:
    """Return a study's trials with what they came to on a device, by number.

    One that was measured there is completed, whatever becomes of it elsewhere; one that was not lacks what
    only that device can tell.
    """
    key = reading.study_id(connection, name)
    query = (
        select(*MEASUREMENT_COLUMNS)
        .where(MEASUREMENT.c.study_id == key)
        .order_by(MEASUREMENT.c.trial, MEASUREMENT.c.attempt, MEASUREMENT.c.position)
    )
    found: defaultdict[int, list[Measurement]] = defaultdict(list)
    for row in connection.execute(query):
        found[row[0]].append(Measurement(*row[1:]))
    return tuple(_on(trial, found[trial.number], device) for trial in reading.load(connection, key))


def _on(trial: Trial, every: Sequence[Measurement], device: str) -> Trial:
    kept = {m.metric: m for m in trial.measurements if not _is_timing(m)}
    timed = {m.metric: m for m in every if _is_timing(m) and m.device == device}  # the latest attempt's
    if timed and trial.state in (TrialState.WAITING, TrialState.RUNNING):
        kept |= {m.metric: m for m in every if not _is_timing(m)}
        trial = replace(trial, state=TrialState.COMPLETED)
    return replace(trial, measurements=(*kept.values(), *timed.values()))


def _is_timing(measurement: Measurement) -> bool:
    return METRICS[measurement.metric].of_device and measurement.source is Source.MEASURED
