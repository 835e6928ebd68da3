"""What a figure says of a trial when pointed at. Plotly reads tags in such text, so everything is escaped."""

from collections.abc import Sequence

from hpo.format import escaped, spread_text, words
from hpo.metric import Source
from hpo.trial import Measurement, Objective, Trial

_WIDTH = 60
"""Characters of a line; a longer one would leave the screen of a phone."""


def hover_text(trial: Trial, objectives: Sequence[Objective], standing: str) -> str:
    """Return number, origin and standing, the objectives, then the recipe, one per line."""
    measured = [m for o in objectives if (m := trial.measurement(o.metric)) is not None]
    recipe = [f"{name} = {_short(value)}" for name, value in trial.candidate.items] or ["nothing is done"]
    lines = [f"<b>trial {trial.number}</b> ({_line(trial.origin)})", _line(standing)]
    return "<br>".join([*lines, *map(_measured, measured), *map(_line, recipe)])


def _measured(measurement: Measurement) -> str:
    value = spread_text(measurement.value, measurement.spread, measurement.unit)
    modelled = " (modelled)" if measurement.source is Source.MODELLED else ""
    return f"{words(measurement.metric)}: <b>{value}</b>{modelled}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(text: str) -> str:
    return escaped(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…")
