"""The fronts of several studies in two objectives: runs -> numbers -> figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from dashboards import palette
from dashboards.attainment import FEWEST, PERCENTS, attainment
from dashboards.axis import Axis, axis_of
from dashboards.comparison import MOST, Run
from dashboards.figures import blank, styled
from dashboards.front import Point, staircase
from dashboards.routes import TrialRoute
from dashboards.timeline import shortened
from hpo.format import count_text, escaped, value_text, words
from hpo.pareto import Array, Frame, nondominated
from hpo.trial import Objective

MOST_MARKS = 200
"""Marks that are drawn of a study; its line has all corners."""

_HEIGHT = 560
_COLOURS = (palette.BLUE, palette.VERMILLION, palette.GREEN, palette.PURPLE)
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")
"""No two studies have the same; from the fifth on the colours come again, with dashed lines."""


@dataclass(frozen=True)
class Line:
    """The front of a study in the two objectives shown. Values are in the metrics' units."""

    name: str
    marks: tuple[Point, ...]
    numbers: tuple[int, ...]
    """Trial of each mark."""
    stairs: tuple[Point, ...]
    left_out: int
    """Points of the front that have no mark, for there are too many."""


@dataclass(frozen=True)
class FrontsView:
    """Everything that is drawn of a comparison."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    bands: Mapping[int, tuple[Point, ...]]
    """Percent of the studies -> the line that so many attain; empty where none are asked for."""

    @property
    def aside(self) -> str:
        """What the figure does not show by itself, in words."""
        said = []
        if left_out := sum(line.left_out for line in self.lines):
            said.append(f"{count_text(left_out, 'mark')} left out where they crowd; the lines have all.")
        if missing := [line.name for line in self.lines if not line.marks]:
            said.append(f"Without a point in the box: {', '.join(missing)}.")
        if self.bands:
            runs = len(self.lines)
            said.append(
                f"The band is what a quarter to three quarters of the {runs} runs attain, the dashed grey "
                "line what half of them do."
            )
        if self.bands and not self.bands[PERCENTS[-1]]:
            said.append("Too few runs have a point in the box for the band to have an outer edge.")
        return " ".join(said)


def fronts_view(
    runs: Sequence[Run], objectives: Sequence[Objective], box: Frame | None, x: str, y: str, *, bands: bool
) -> FrontsView:
    """Return the fronts of the runs in the metrics `x` and `y`, two of the objectives, inside the box.

    Each front is that of the two metrics alone: what is best in others is not drawn.
    """
    names = [o.metric for o in objectives]
    columns = [names.index(x), names.index(y)]
    pair = (objectives[columns[0]], objectives[columns[1]])
    fronts = [_front(run, box, columns) for run in runs]
    points = np.concatenate([front for front, _ in fronts]) if fronts else np.empty((0, 2))
    surfaces = attainment([front for front, _ in fronts]) if bands and len(runs) >= FEWEST else {}
    reach = np.concatenate([points, *surfaces.values()])
    corner = (float(reach[:, 0].max()), float(reach[:, 1].max())) if len(reach) else (0.0, 0.0)
    return FrontsView(
        x=axis_of(pair[0], [pair[0].loss(float(loss)) for loss in reach[:, 0]]),
        y=axis_of(pair[1], [pair[1].loss(float(loss)) for loss in reach[:, 1]]),
        lines=tuple(
            _line(run.name, front, numbers, pair, corner)
            for run, (front, numbers) in zip(runs, fronts, strict=True)
        ),
        bands={percent: _values(staircase(surface, corner), pair) for percent, surface in surfaces.items()},
    )


def _front(run: Run, box: Frame | None, columns: Sequence[int]) -> tuple[Array, Sequence[int]]:
    """Return the (K, 2) nondominated points of a run, each once, by the first loss, and their trials."""
    inside = run.inside(box)
    losses_N2, numbers = run.losses[inside][:, columns], run.numbers[inside]
    best = nondominated(losses_N2)
    front, first = np.unique(losses_N2[best], axis=0, return_index=True)
    return front, [int(number) for number in numbers[best][first]]


def _line(
    name: str, front: Array, numbers: Sequence[int], pair: tuple[Objective, Objective], corner: Point
) -> Line:
    kept = np.unique(np.linspace(0, max(len(front) - 1, 0), min(len(front), MOST_MARKS)).astype(int))
    kept = kept[: len(front)]
    return Line(
        name=name,
        marks=_values([(float(a), float(b)) for a, b in front[kept]], pair),
        numbers=tuple(numbers[i] for i in kept),
        stairs=_values(staircase(front, corner), pair),
        left_out=len(front) - len(kept),
    )


def _values(losses: Sequence[Point], pair: tuple[Objective, Objective]) -> tuple[Point, ...]:
    return tuple((pair[0].loss(a), pair[1].loss(b)) for a, b in losses)


def draw_fronts(view: FrontsView) -> go.Figure:
    """Return the figure: a step line and marks for each study, the bands of all behind them."""
    if not any(line.marks for line in view.lines):
        return blank("None of these studies has a completed trial in the box yet.", _HEIGHT)
    figure = go.Figure()
    _draw_bands(figure, view)
    for place, line in enumerate(view.lines[:MOST]):
        _draw_line(figure, view, line, place)
    figure.update_layout(
        xaxis=view.x.layout(("←", "→")), yaxis=view.y.layout(("↓", "↑")), hovermode="closest"
    )
    return styled(figure, _HEIGHT, f"{view.x.metric} {view.y.metric}")


def _draw_bands(figure: go.Figure, view: FrontsView) -> None:
    inner, median, outer = (view.bands.get(percent, ()) for percent in PERCENTS)
    if inner and outer:
        edge = [*inner, *reversed(outer)]
        figure.add_scatter(
            x=[view.x.shown(a) for a, _ in edge],
            y=[view.y.shown(b) for _, b in edge],
            mode="lines",
            fill="toself",
            fillcolor="rgba(139,146,154,0.28)",
            line={"width": 0},
            hoverinfo="skip",
            name="25 to 75 % attain",
        )
    if median:
        figure.add_scatter(
            x=[view.x.shown(a) for a, _ in median],
            y=[view.y.shown(b) for _, b in median],
            mode="lines",
            line={"color": palette.GREY, "width": 3, "dash": "dash"},
            hoverinfo="skip",
            name="half attain",
        )


def _draw_line(figure: go.Figure, view: FrontsView, line: Line, place: int) -> None:
    colour, group = _COLOURS[place % len(_COLOURS)], f"study {place}"
    dash = "solid" if place < len(_COLOURS) else "dot"
    label = escaped(shortened(line.name, 32))
    figure.add_scatter(
        x=[view.x.shown(a) for a, _ in line.stairs],
        y=[view.y.shown(b) for _, b in line.stairs],
        mode="lines",
        line={"color": colour, "width": 2, "dash": dash},
        hoverinfo="skip",
        legendgroup=group,
        showlegend=False,
    )
    figure.add_scatter(
        x=[view.x.shown(a) for a, _ in line.marks],
        y=[view.y.shown(b) for _, b in line.marks],
        mode="markers",
        marker={"color": colour, "symbol": _SHAPES[place], "size": 9},
        hovertext=[
            f"{label}<br>trial {number}<br>{_said(view.x, a)}<br>{_said(view.y, b)}"
            for number, (a, b) in zip(line.numbers, line.marks, strict=True)
        ],
        hoverinfo="text",
        customdata=[TrialRoute(line.name, number).path for number in line.numbers],
        legendgroup=group,
        name=label,
        showlegend=True,
    )


def _said(axis: Axis, value: float) -> str:
    unit = Objective(metric=axis.metric).about.unit
    return f"{words(axis.metric)} {value_text(value, unit, axis.high)}"
