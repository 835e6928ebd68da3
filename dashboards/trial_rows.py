"""The trials of a study as rows of a table: numbers to sort by, and the text to show for them."""

from collections.abc import Sequence
from typing import Any

from dashboards.front import standing_of
from hpo.format import duration_text, spread_text, words
from hpo.metric import Source
from hpo.study import Study
from hpo.trial import Measurement, Trial

Row = dict[str, Any]


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
