"""An axis of a figure: one metric, how it is scaled, and which way is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpo.format import Scale, number_text, scale_for, words
from hpo.trial import Objective

LOG_SPAN = 5.0
"""From this ratio of largest to smallest value on, an axis is logarithmic."""

_LIMIT_ROOM = 1.6
"""A limit farther from the data than this share of their span is named in the title, not drawn."""

_PADDING = 0.08


@dataclass(frozen=True)
class Axis:
    """What an axis shows. Values are in the metric's unit; `shown` maps them to the axis."""

    metric: str
    scale: Scale
    logarithmic: bool
    modelled: bool
    """Some of the values are modelled, not measured."""
    lower_is_better: bool
    limit: float | None
    """The worst acceptable value; None where there is no limit, or it is not known yet."""
    low: float
    high: float
    """Ends of what is drawn: the data, and the limit where it is near."""

    def shown(self, value: float) -> float:
        return value / self.scale.divisor

    @property
    def draws_limit(self) -> bool:
        return self.limit is not None and self.low <= self.limit <= self.high

    def title(self, arrows: tuple[str, str]) -> str:
        """Return name, unit and direction; `arrows` point to the lower and to the higher end."""
        name = f"{words(self.metric)} [{self.scale.unit}]"
        modelled = " (modelled)" if self.modelled else ""
        far = (
            "" if self.limit is None or self.draws_limit else f", limit {number_text(self.shown(self.limit))}"
        )
        better = f"{arrows[0]} lower" if self.lower_is_better else f"{arrows[1]} higher"
        return f"{name}{modelled}{far}<br>{better} is better"

    def layout(self, arrows: tuple[str, str]) -> dict[str, Any]:
        """Return the axis as Plotly wants it."""
        low, high = self.shown(self.low), self.shown(self.high)
        if self.logarithmic:
            low, high = math.log10(low), math.log10(high)
        pad = _PADDING * (high - low) or max(abs(high) * _PADDING, 1e-9)
        shape: dict[str, Any] = {
            "title": {"text": self.title(arrows), "standoff": 8},
            "type": "log" if self.logarithmic else "linear",
            "range": [low - pad, high + pad],
            "exponentformat": "none",
        }
        if self.logarithmic:
            ticks = log_ticks(low - pad, high + pad)
            shape |= {"tickvals": ticks, "ticktext": [number_text(tick) for tick in ticks]}
        return shape


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two powers of ten, given as exponents; Plotly's own are hard to read."""
    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high - low < 1.5 else (1.0, 2.0, 5.0)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = (float(f"{step}e{decade}") for decade in decades for step in steps)
    return [tick for tick in ticks if low <= math.log10(tick) <= high]


def axis_of(
    objective: Objective, values: Sequence[float], limit: float | None = None, modelled: bool = False
) -> Axis:
    """Return the axis that shows `values` of an objective, in the metric's unit, and its limit if near."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if limit is not None and _is_near(limit, low, high):
        low, high = min(low, limit), max(high, limit)
    return Axis(
        metric=objective.metric,
        scale=scale_for(objective.about.unit, high),
        logarithmic=low > 0 and high / low >= LOG_SPAN,
        modelled=modelled,
        lower_is_better=objective.about.better == "lower",
        limit=limit,
        low=low,
        high=high,
    )


def _is_near(limit: float, low: float, high: float) -> bool:
    room = _LIMIT_ROOM * max(high - low, 0.1 * abs(high))
    return low - room <= limit <= high + room
