"""What the browser is sent of a study's trials, so that it can draw and filter them without asking again.

Columns, not rows, as base64 of little-endian numbers: 10,000 trials of four objectives are 0.8 MB and exact.
The browser asks again with the newest event that it knows, and is sent what has changed since.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboards import palette
from dashboards.front import anchor_name
from dashboards.source import Snapshot
from hpo.format import scale_for, words
from hpo.metric import METRICS, Source
from hpo.problem import bounds, dense_trial, frame
from hpo.study import Study
from hpo.trial import Objective, Trial, TrialState

_TOLD = 200
"""First and last trials from which units are told."""

STATES = tuple(str(state) for state in TrialState)
"""A trial's state is sent as its place in here."""


def metrics_of(study: Study, trials: Sequence[Trial]) -> list[str]:
    """Return the metrics a front can be looked at in: the objectives, then whatever else was measured."""
    measured = {m.metric for t in trials for m in t.measurements if m.metric in METRICS}
    objectives = [o.metric for o in study.objectives]
    return [*objectives, *sorted(measured.difference(objectives))]


def feed_of(now: Snapshot, changed: Sequence[Trial]) -> dict[str, Any]:
    """Return the metrics of a study, with their limits as they stand, and its `changed` trials, for JSON."""
    known = {"study": now.record.study.name, "created": now.record.created_at, "newest": now.newest}
    if not changed and now.trials:
        return known
    told = _telling(now.trials)
    metrics = metrics_of(now.record.study, told)
    return known | {
        "trials": len(now.trials),
        "objectives": len(now.record.study.objectives),
        "metrics": _described(now.record.study, metrics, told),
        "states": STATES,
        "columns": _columns(metrics, changed),
        "style": STYLE,
    }


def _telling(trials: Sequence[Trial]) -> list[Trial]:
    """Return trials enough to tell of units and metrics: the anchors, of which the limits and the reference
    follow, and some of the others, so that news of a few trials cost no look at all of them."""
    some = {id(trial) for trial in (*trials[:_TOLD], *trials[-_TOLD:])}
    return [trial for trial in trials if id(trial) in some or trial.origin.startswith("anchor")]


def _described(study: Study, metrics: Sequence[str], trials: Sequence[Trial]) -> list[dict[str, Any]]:
    objectives = study.objectives
    dense, box = dense_trial(trials), frame(objectives, trials)
    known = {o.metric: (o, place) for place, o in enumerate(objectives)}
    found = []
    for name in metrics:
        objective, place = known.get(name, (Objective(metric=name), None))
        values = [value for t in trials if (value := t.value(name)) is not None]
        scale = scale_for(objective.about.unit, max(values, default=0.0))
        bound = float(bounds([objective], trials)[0])
        found.append(
            {
                "name": name,
                "label": words(name),
                "unit": scale.unit,
                "divisor": scale.divisor,
                "lower": objective.about.better == "lower",
                "limit": objective.loss(bound) if np.isfinite(bound) else None,
                "dense": None if dense is None else dense.value(name),
                "reference": None if box is None or place is None else objective.loss(box.reference[place]),
            }
        )
    return found


def _columns(metrics: Sequence[str], trials: Sequence[Trial]) -> dict[str, Any]:
    shape = (len(metrics), len(trials))
    values, spreads = np.full(shape, np.nan), np.zeros(shape, dtype=np.float32)
    modelled = np.zeros(shape, dtype=np.uint8)
    places = {name: row for row, name in enumerate(metrics)}
    for column, trial in enumerate(trials):
        for m in trial.measurements:  # of two measurements of a metric the later one holds
            if (row := places.get(m.metric)) is not None:
                values[row, column], spreads[row, column] = m.value, m.spread
                modelled[row, column] = m.source is Source.MODELLED
    return {
        "number": _sent(np.array([t.number for t in trials], dtype=np.int32)),
        "state": _sent(np.array([STATES.index(t.state) for t in trials], dtype=np.uint8)),
        "seconds": _sent(np.array([t.seconds for t in trials], dtype=np.float32)),
        "values": [_sent(row) for row in values],
        "spreads": [_sent(row) for row in spreads],
        "modelled": [_sent(row) for row in modelled],
        "anchors": {str(t.number): name for t in trials if (name := anchor_name(t))},
        "origins": [t.origin for t in trials],
        "recipes": [str(t.candidate) for t in trials],
        "causes": {str(t.number): words(t.cause) for t in trials if t.cause is not None},
    }


def _sent(numbers: NDArray[Any]) -> str:
    return base64.b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode("ascii")


STYLE: Mapping[str, str] = {
    "front": palette.BLUE,
    "front_dark": palette.SKY,
    "dominated": palette.GREY,
    "outside": palette.VERMILLION,
    "recommended": palette.PURPLE,
    "reference": palette.GREEN,
}
"""Colour of each kind of mark; shapes say the same."""
