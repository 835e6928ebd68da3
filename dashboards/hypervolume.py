"""The hypervolume of a study as it went on: trials -> numbers -> figure.

The box is fixed by the anchors and limits (`hpo.problem.frame`), so that the curve never falls and
curves of one study can be compared from day to day.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import plotly.graph_objects as go

from dashboards import palette
from dashboards.figures import blank, styled
from hpo.format import number_text, percent_text, value_text, words
from hpo.problem import frame, losses, within_limits
from hpo.trial import Objective, Trial

Against = Literal["trials", "seconds", "hours"]
AGAINST: tuple[Against, ...] = get_args(Against)
"""What a curve can be drawn over: finished trials, the clock on the wall, the work of all workers."""

_HEIGHT = 300
_OUTLOOK_HEIGHT = 360
_MOST_POINTS = 600
_FAR = 3.0
"""A budget that ends farther away than so many times what is spent is named, not drawn to."""

_CLOCK = ((2 * 3600.0, 3600.0, "h"), (600.0, 60.0, "min"), (0.0, 1.0, "s"))
"""From so many seconds on, seconds are divided by this and so called."""


@dataclass(frozen=True)
class HypervolumeCurve:
    """Hypervolume after each finished trial, as a share of the reference box; all of one length."""

    numbers: tuple[int, ...]
    """Trial numbers in the order in which they finished, failed and stopped ones included."""
    values: tuple[float, ...]
    hours: tuple[float, ...]
    """Worker hours spent until then; GPU-hours where a worker holds GPUs."""
    seconds: tuple[float, ...]
    """By the clock on the wall, from the first start of a trial."""
    reference: tuple[tuple[Objective, float], ...]
    """The reference corner, in the metrics' units."""
    gpus: float = 0.0
    """GPUs that a worker holds; 0 where trials run on the processor."""

    def __post_init__(self) -> None:
        if not len(self.numbers) == len(self.values) == len(self.hours) == len(self.seconds):
            raise ValueError(
                f"{len(self.numbers)} numbers, {len(self.values)} values, {len(self.hours)} hours "
                f"and {len(self.seconds)} seconds"
            )

    @property
    def last(self) -> float:
        return self.values[-1] if self.values else 0.0

    @property
    def work(self) -> str:
        """What an hour of work is called here."""
        return "GPU-hours" if self.gpus else "worker hours"

    def along(self, against: Against) -> tuple[float, ...]:
        """Return where each value lies on an axis: finished trials, seconds or hours."""
        match against:
            case "trials":
                return tuple(float(i) for i in range(1, len(self.values) + 1))
            case "seconds":
                return self.seconds
        return self.hours

    @property
    def caption(self) -> str:
        """What the numbers are a share of, in words."""
        corner = ", ".join(f"{words(o.metric)} {value_text(at, o.about.unit)}" for o, at in self.reference)
        return (
            f"Share of the box between the ideal and the reference point ({corner}) that the front dominates."
        )


@dataclass(frozen=True)
class Band:
    """Where a curve may go from its end: shares of the box at a place on its axis.

    Raises:
        ValueError: the estimate is not between its ends.
    """

    at: float
    """In trials, seconds or hours, as the axis has it."""
    low: float
    expected: float
    high: float
    name: str

    def __post_init__(self) -> None:
        if not self.low <= self.expected <= self.high:
            raise ValueError(f"an estimate of {self.expected:g} between {self.low:g} and {self.high:g}")


def hypervolume_curve(
    objectives: Sequence[Objective], trials: Sequence[Trial], gpus: float = 0.0
) -> HypervolumeCurve | None:
    """Return the curve over the trials that are over; None while anchors or limits fix no box.

    Args:
        gpus: how many a worker holds; 0 counts hours of workers.
    """
    box = frame(objectives, trials)
    if box is None:
        return None
    kept = within_limits(objectives, trials)
    losses_NM = np.where(kept[:, None], losses(objectives, trials), np.nan)
    order = sorted(
        (i for i, trial in enumerate(trials) if trial.state.is_final),
        key=lambda i: (trials[i].finished_at or 0.0, trials[i].number),
    )
    begun = min((t.started_at for t in trials if t.started_at is not None), default=0.0)
    hours = np.cumsum([trials[i].seconds / 3600 * (gpus or 1.0) for i in order])
    return HypervolumeCurve(
        numbers=tuple(trials[i].number for i in order),
        values=tuple(map(float, box.hypervolumes(losses_NM[order]))),
        hours=tuple(map(float, hours)),
        seconds=tuple(max((trials[i].finished_at or begun) - begun, 0.0) for i in order),
        reference=tuple((o, o.loss(at)) for o, at in zip(objectives, box.reference, strict=True)),
        gpus=gpus,
    )


def draw_hypervolume(
    curve: HypervolumeCurve | None,
    against: Against = "trials",
    end: float | None = None,
    band: Band | None = None,
) -> go.Figure:
    """Return the figure of a curve over finished trials, over the clock, or over hours of work.

    Args:
        end: where on this axis the budget ends, if it does.
        band: where the curve may go; `band.at` on this axis.
    """
    if curve is None:
        return blank("The hypervolume is known once the dense model has been measured.")
    if not curve.values:
        return blank("No trial has finished yet.")
    along = curve.along(against)
    reach = max(along[-1], band.at if band else 0.0)
    drawn_end = end if end is not None and end <= _FAR * reach else None
    divisor, title = _unit(curve, against, max(reach, drawn_end or 0.0))
    if end is not None and drawn_end is None:
        title += f"<br>the budget ends at {number_text(end / divisor, 3)}"
    figure = go.Figure()
    _add_curve(figure, curve, [at / divisor for at in along])
    if band is not None:
        _add_band(figure, along[-1] / divisor, curve.last, band, divisor)
    if drawn_end is not None:
        _add_end(figure, along[-1] / divisor, drawn_end / divisor)
    figure.update_layout(
        xaxis={"title": {"text": title, "standoff": 8}, "rangemode": "tozero"},
        yaxis={"title": {"text": "hypervolume [%]<br>↑ higher is better"}, "rangemode": "tozero"},
        showlegend=band is not None,
    )
    return styled(figure, _HEIGHT if band is None and end is None else _OUTLOOK_HEIGHT, against)


def _unit(curve: HypervolumeCurve, against: Against, reach: float) -> tuple[float, str]:
    """Return what an axis is divided by, and its title."""
    if against == "trials":
        return 1.0, "finished trials"
    if against == "hours":
        return 1.0, curve.work
    _, divisor, name = next(step for step in _CLOCK if reach >= step[0])
    return divisor, f"time since the first start [{name}]"


def _add_curve(figure: go.Figure, curve: HypervolumeCurve, along: Sequence[float]) -> None:
    kept = drawn_points(curve.values, _MOST_POINTS)
    figure.add_scatter(
        x=[along[i] for i in kept],
        y=[100 * curve.values[i] for i in kept],
        mode="lines+markers",
        line={"color": palette.BLUE, "shape": "hv", "width": 2},
        marker={"size": 5},
        hovertext=[f"after trial {curve.numbers[i]}: {percent_text(curve.values[i])}" for i in kept],
        hoverinfo="text",
        customdata=[curve.numbers[i] for i in kept],
        showlegend=False,
    )


def drawn_points(values: Sequence[float], most: int) -> list[int]:
    """Return the places of about `most` values of a step line that never falls: its ends and its rises, as
    far as there is room, and others evenly between."""
    if len(values) <= most:
        return list(range(len(values)))
    rises = np.flatnonzero(np.diff(values, prepend=values[0]) > 0)
    if len(rises) > most // 2:
        rises = rises[np.linspace(0, len(rises) - 1, most // 2).astype(int)]
    even = np.linspace(0, len(values) - 1, most - len(rises)).astype(int)
    return [int(i) for i in np.union1d(rises, even)]


def _add_band(figure: go.Figure, at: float, share: float, band: Band, divisor: float) -> None:
    to = band.at / divisor
    figure.add_scatter(
        x=[at, to, to, at],
        y=[100 * value for value in (share, band.high, band.low, share)],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor="rgba(0,114,178,0.22)",
        hoverinfo="skip",
        name=f"{band.name}, 90 % interval",
    )
    figure.add_scatter(
        x=[at, to],
        y=[100 * share, 100 * band.expected],
        mode="lines",
        line={"color": palette.BLUE, "width": 2, "dash": "dot"},
        hoverinfo="skip",
        name=f"{band.name}, expected",
    )


def _add_end(figure: go.Figure, at: float, end: float) -> None:
    figure.add_vrect(x0=at, x1=end, fillcolor=palette.GREY, opacity=0.14, line_width=0, layer="below")
    line = {"color": palette.VERMILLION, "dash": "dash", "width": 1.5}
    figure.add_shape(type="line", x0=end, x1=end, y0=0, y1=1, yref="paper", line=line)
    figure.add_annotation(
        x=end,
        y=0,
        yref="paper",
        text="end of the budget",
        showarrow=False,
        xanchor="right",
        yanchor="bottom",
        xshift=-4,
    )
