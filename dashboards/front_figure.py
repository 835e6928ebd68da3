"""Draws a `FrontView`. Colour says how a trial stands, shape what it is, a hollow mark: it is modelled."""

import math
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

from dashboards import palette
from dashboards.axis import Axis
from dashboards.figures import blank, styled
from dashboards.front import FrontView, Mark, Standing
from hpo.format import escaped

ANCHORS = "anchors"
STAIRS = "attained in these two"
KNEE = "knee"

_COLOURS = {
    Standing.FRONT: palette.BLUE,
    Standing.DOMINATED: palette.GREY,
    Standing.BEYOND_LIMIT: palette.VERMILLION,
    Standing.INCOMPLETE: palette.GREY,
}
_SHAPES = {
    Standing.FRONT: "circle",
    Standing.DOMINATED: "circle",
    Standing.BEYOND_LIMIT: "x",
    Standing.INCOMPLETE: "triangle-up",
}
_SIZES = {Standing.FRONT: 11, Standing.DOMINATED: 8, Standing.BEYOND_LIMIT: 8, Standing.INCOMPLETE: 9}
_HEIGHT = 520
_BARS = 100
"""Marks up to which their spreads are drawn; of more, pointing at one tells."""


def draw_front(view: FrontView) -> go.Figure:
    """Return the figure of a front; one that says why if there is nothing to draw."""
    if not view.marks:
        return blank(_why_empty(view), _HEIGHT)
    figure = go.Figure()
    _add_stairs(figure, view)
    searched = [mark for mark in view.marks if not mark.anchor]
    for standing in (Standing.DOMINATED, Standing.INCOMPLETE, Standing.BEYOND_LIMIT, Standing.FRONT):
        group = [mark for mark in searched if mark.standing is standing]
        if group:
            _add_marks(figure, view, group, _name(standing, view.objectives))
    anchors = [mark for mark in view.marks if mark.anchor]
    if anchors:
        _add_marks(figure, view, anchors, ANCHORS)
    _add_knee(figure, view)
    _add_limits(figure, view)
    figure.update_layout(
        xaxis=view.x.layout(("←", "→")),
        yaxis=view.y.layout(("↓", "↑")),
        hovermode="closest",
        clickmode="event",
    )
    return styled(figure, _HEIGHT, f"{view.x.metric}|{view.y.metric}")


def _name(standing: Standing, objectives: int) -> str:
    return f"front of all {objectives} objectives" if standing is Standing.FRONT else str(standing)


def _why_empty(view: FrontView) -> str:
    if not view.hidden:
        return "No trial has finished yet."
    reasons = ", ".join(f"{count} {reason}" for reason, count in view.hidden.items())
    return f"No completed trial has both metrics yet ({reasons})."


def _add_stairs(figure: go.Figure, view: FrontView) -> None:
    if not view.stairs:
        return
    xs, ys = zip(*view.stairs, strict=True)
    figure.add_scatter(
        x=_shown(view.x, xs),
        y=_shown(view.y, ys),
        mode="lines",
        line={"color": palette.BLUE, "width": 1.5},
        opacity=0.6,
        hoverinfo="skip",
        name=STAIRS,
    )


def _add_marks(figure: go.Figure, view: FrontView, marks: Sequence[Mark], name: str) -> None:
    figure.add_scatter(
        x=_shown(view.x, [mark.x for mark in marks]),
        y=_shown(view.y, [mark.y for mark in marks]),
        error_x=_errors(view.x, [mark.x_spread for mark in marks], marks),
        error_y=_errors(view.y, [mark.y_spread for mark in marks], marks),
        mode="markers+text" if name == ANCHORS else "markers",
        marker={
            "symbol": [_symbol(mark) for mark in marks],
            "color": [_COLOURS[mark.standing] for mark in marks],
            "size": [12 if mark.anchor else _SIZES[mark.standing] for mark in marks],
            "opacity": 0.6 if name == Standing.DOMINATED else 1.0,
            "line": {"width": [2 if mark.modelled else 0 for mark in marks]},
        },
        text=[escaped(mark.anchor) for mark in marks],
        textposition="top center",
        cliponaxis=False,
        hovertext=[mark.hover for mark in marks],
        hoverinfo="text",
        customdata=[mark.number for mark in marks],
        name=name,
    )


def _symbol(mark: Mark) -> str:
    shape = _SHAPES[mark.standing]
    if mark.anchor:
        shape = "star" if mark.anchor == "dense" else "diamond"
    return f"{shape}-open" if mark.modelled else shape


def _errors(axis: Axis, spreads: Iterable[float], marks: Sequence[Mark]) -> dict[str, object]:
    if len(marks) > _BARS:
        return {"visible": False}
    array = _shown(axis, spreads)
    colour = _COLOURS[marks[0].standing] if not marks[0].anchor else palette.GREY
    return {
        "array": array,
        "visible": any(spread > 0 for spread in array),
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def _add_knee(figure: go.Figure, view: FrontView) -> None:
    for mark in view.marks:
        if mark.number == view.knee:
            figure.add_scatter(
                x=_shown(view.x, [mark.x]),
                y=_shown(view.y, [mark.y]),
                mode="markers",
                marker={"symbol": "circle-open", "size": 22, "color": palette.PURPLE, "line": {"width": 2.5}},
                hoverinfo="skip",
                name=f"{KNEE}: trial {mark.number}",
            )


def _add_limits(figure: go.Figure, view: FrontView) -> None:
    line = {"color": palette.VERMILLION, "dash": "dash", "width": 1.5}
    for axis, letter, other in ((view.x, "x", "y"), (view.y, "y", "x")):
        if axis.limit is None or not axis.draws_limit:
            continue
        at = axis.shown(axis.limit)
        across = {f"{letter}0": at, f"{letter}1": at, f"{other}0": 0, f"{other}1": 1}
        figure.add_shape(type="line", line=line, **across, **{f"{other}ref": "paper"})
        # Plotly wants shapes in the axis's values, but annotations in their logarithms.
        label = {letter: math.log10(at) if axis.logarithmic else at, other: 1, f"{other}ref": "paper"}
        anchors = {"xanchor": "right", "yanchor": "bottom" if letter == "y" else "top"}
        figure.add_annotation(text="limit", showarrow=False, **label, **anchors)


def _shown(axis: Axis, values: Iterable[float]) -> list[float]:
    return [axis.shown(value) for value in values]
