"""The trials of a study as rows of a table: numbers to sort by, and the text to show for them."""

from collections.abc import Sequence
from typing import Any

from dashboards.front import standing_of
from hpo.format import duration_text, number_text, spread_text, words
from hpo.metric import Source
from hpo.problem import dense_trial
from hpo.study import Study
from hpo.trial import Measurement, Trial

Row = dict[str, Any]

MEASUREMENT_HEAD = ("metric", "value", "of dense", "repeats", "source", "device", "how")
"""What `measurement_rows` says of each measurement."""


def trial_rows(study: Study, trials: Sequence[Trial]) -> list[Row]:
    """Return a row for each trial. A number to sort by stands beside the text to show (`..._text`)."""
    standings = standing_of(study.objectives, trials)
    largest = {o.metric: _largest(o.metric, trials) for o in study.objectives}
    rows = []
    for trial in trials:
        row: Row = {
            "id": str(trial.number),
            "number": trial.number,
            "state": state_text(trial),
            "standing": str(standings.get(trial.number, "")),
            "origin": trial.origin,
            "seconds": trial.seconds,
            "seconds_text": duration_text(trial.seconds) if trial.stages else "",
            "recipe": str(trial.candidate),
        }
        for o in study.objectives:
            measurement = trial.measurement(o.metric)
            row[o.metric] = None if measurement is None else measurement.value
            row[f"{o.metric}_text"] = (
                "" if measurement is None else measurement_text(measurement, largest[o.metric])
            )
        rows.append(row)
    return rows


def state_text(trial: Trial) -> str:
    """Return the state of a trial, with the cause of a failure."""
    return f"failed: {words(trial.cause)}" if trial.cause else str(trial.state)


def measurement_text(measurement: Measurement, largest: float | None = None) -> str:
    """Return value, spread and unit; the unit is that of `largest` where it is given."""
    modelled = " (modelled)" if measurement.source is Source.MODELLED else ""
    return spread_text(measurement.value, measurement.spread, measurement.unit, largest) + modelled


def _largest(metric: str, trials: Sequence[Trial]) -> float | None:
    return max((value for t in trials if (value := t.value(metric)) is not None), default=None)


def measurement_rows(trial: Trial, trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    """Return a row of words for each measurement of one of `trials`, in the order of `MEASUREMENT_HEAD`."""
    dense = dense_trial(trials)
    rows: list[tuple[str, ...]] = []
    for m in trial.measurements:
        ratio = _of_dense(m, dense.measurement(m.metric) if dense else None)
        repeats = str(m.repeats) if m.device else "–"
        text = measurement_text(m)
        rows.append((words(m.metric), text, ratio, repeats, str(m.source), m.device or "–", m.note or "–"))
    return rows


def _of_dense(measurement: Measurement, dense: Measurement | None) -> str:
    """Return how many times the dense model's value it is; figures of two devices are not compared."""
    if dense is None or not dense.value:
        return "–"
    if dense.device != measurement.device:
        return "dense was on another device"
    return f"{number_text(measurement.value / dense.value, 3)} ×"
