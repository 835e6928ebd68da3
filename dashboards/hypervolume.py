"""The hypervolume of a study as it went on: trials -> numbers -> figure.

The box is fixed by the anchors and limits (`hpo.problem.frame`), so that the curve never falls and
curves of one study can be compared from day to day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from dashboards import palette
from dashboards.figures import blank, styled
from hpo.format import percent_text, value_text, words
from hpo.problem import frame, losses, within_limits
from hpo.trial import Objective, Trial

Against = Literal["trials", "hours"]
_HEIGHT = 300


@dataclass(frozen=True)
class HypervolumeCurve:
    """Hypervolume after each finished trial, as a share of the reference box; all of one length."""

    numbers: tuple[int, ...]
    """Trial numbers in the order in which they finished, failed and stopped ones included."""
    values: tuple[float, ...]
    hours: tuple[float, ...]
    """Worker hours spent until then."""
    reference: tuple[tuple[Objective, float], ...]
    """The reference corner, in the metrics' units."""

    def __post_init__(self) -> None:
        if not len(self.numbers) == len(self.values) == len(self.hours):
            raise ValueError(
                f"{len(self.numbers)} numbers, {len(self.values)} values and {len(self.hours)} hours"
            )

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else 0.0

    @property
    def caption(self) -> str:
        """What the numbers are a share of, in words."""
        corner = ", ".join(f"{words(o.metric)} {value_text(at, o.about.unit)}" for o, at in self.reference)
        return (
            f"Share of the box between the ideal and the reference point ({corner}) that the front dominates."
        )


def hypervolume_curve(objectives: Sequence[Objective], trials: Sequence[Trial]) -> HypervolumeCurve | None:
    """Return the curve over the trials that are over; None while anchors or limits fix no box."""
    box = frame(objectives, trials)
    if box is None:
        return None
    kept = within_limits(objectives, trials)
    losses_NM = np.where(kept[:, None], losses(objectives, trials), np.nan)
    order = sorted(
        (i for i, trial in enumerate(trials) if trial.state.is_final),
        key=lambda i: (trials[i].finished_at or 0.0, trials[i].number),
    )
    hours = np.cumsum([trials[i].seconds / 3600 for i in order])
    return HypervolumeCurve(
        numbers=tuple(trials[i].number for i in order),
        values=tuple(map(float, box.hypervolumes(losses_NM[order]))),
        hours=tuple(map(float, hours)),
        reference=tuple((o, o.loss(at)) for o, at in zip(objectives, box.reference, strict=True)),
    )


def draw_hypervolume(curve: HypervolumeCurve | None, against: Against = "trials") -> go.Figure:
    """Return the figure of a curve over finished trials or over worker hours."""
    if curve is None:
        return blank("The hypervolume is known once the dense model has been measured.")
    if not curve.values:
        return blank("No trial has finished yet.")
    figure = go.Figure()
    figure.add_scatter(
        x=list(range(1, len(curve.values) + 1)) if against == "trials" else list(curve.hours),
        y=[100 * value for value in curve.values],
        mode="lines+markers",
        line={"color": palette.BLUE, "shape": "hv", "width": 2},
        marker={"size": 5},
        hovertext=[
            f"after trial {number}: {percent_text(value)}"
            for number, value in zip(curve.numbers, curve.values, strict=True)
        ],
        hoverinfo="text",
        customdata=list(curve.numbers),
        showlegend=False,
    )
    title = "finished trials" if against == "trials" else "worker hours"
    figure.update_layout(
        xaxis={"title": {"text": title}, "rangemode": "tozero"},
        yaxis={"title": {"text": "hypervolume [%]<br>↑ higher is better"}, "rangemode": "tozero"},
    )
    return styled(figure, _HEIGHT, against)
