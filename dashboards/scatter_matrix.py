"""All pairs of objectives at one glance: trials -> numbers -> a triangle of small figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards import palette
from dashboards.axis import Axis, axis_of
from dashboards.figures import blank, styled
from dashboards.front import Standing, anchor_name, standing_of
from hpo.format import escaped, words
from hpo.trial import Objective, Trial, TrialState

FEWEST, MOST = 3, 6
"""Numbers of objectives that a matrix is drawn of: two have one pair, and above six nothing can be read."""
_POINTS = 2000
"""SVG points in all panels together, about."""
_FRONT_SHARE = 0.75
"""Of the points, at most, for the front."""
_CELL = 190
_LOOKS: Mapping[str, Mapping[str, object]] = {
    "front": {"color": palette.BLUE, "symbol": "circle", "size": 6},
    "others": {"color": palette.GREY, "symbol": "circle", "size": 4, "opacity": 0.55},
    "breaks a limit": {"color": palette.VERMILLION, "symbol": "x", "size": 5, "opacity": 0.7},
    "dense": {"color": palette.PURPLE, "symbol": "star", "size": 12},
}


@dataclass(frozen=True)
class ScatterMatrix:
    """Trials with a value in every objective."""

    axes: tuple[Axis, ...]
    values: Mapping[str, tuple[tuple[float, ...], ...]]
    """Group -> a row a trial, a value an objective, in the metrics' units."""
    numbers: Mapping[str, tuple[int, ...]]
    """Group -> the trials' numbers."""
    left_out: int
    """Trials that are not drawn, so that the rest can be seen."""

    @property
    def pairs(self) -> int:
        return len(self.axes) * (len(self.axes) - 1) // 2


def scatter_matrix(objectives: Sequence[Objective], trials: Sequence[Trial]) -> ScatterMatrix | None:
    """Return the matrix of a study; None where it has too few or too many objectives for one."""
    if not FEWEST <= len(objectives) <= MOST:
        return None
    standings = standing_of(objectives, trials)
    groups: dict[str, list[Trial]] = {name: [] for name in _LOOKS}
    for trial in trials:
        if trial.state is TrialState.COMPLETED and standings[trial.number] is not Standing.INCOMPLETE:
            groups[_group(trial, standings[trial.number])].append(trial)
    known = sum(map(len, groups.values()))
    pairs = len(objectives) * (len(objectives) - 1) // 2
    room = _POINTS // pairs
    groups["front"] = _thinned(groups["front"], int(_FRONT_SHARE * room))
    rest, worse = room - len(groups["front"]), len(groups["others"]) + len(groups["breaks a limit"])
    for name in ("others", "breaks a limit"):
        groups[name] = _thinned(groups[name], max(rest * len(groups[name]) // max(worse, 1), 1))
    drawn = [trial for group in groups.values() for trial in group]
    return ScatterMatrix(
        axes=tuple(_axis(o, drawn) for o in objectives),
        values={name: tuple(_values(t, objectives) for t in group) for name, group in groups.items()},
        numbers={name: tuple(t.number for t in group) for name, group in groups.items()},
        left_out=known - len(drawn),
    )


def _thinned(trials: list[Trial], most: int) -> list[Trial]:
    """Return at most so many trials, evenly taken."""
    return trials[:: max(-(-len(trials) // most), 1)]


def _group(trial: Trial, standing: Standing) -> str:
    if anchor_name(trial) == "dense":
        return "dense"
    if standing is Standing.FRONT:
        return "front"
    return "breaks a limit" if standing is Standing.BEYOND_LIMIT else "others"


def _values(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    return tuple(value for o in objectives if (value := trial.value(o.metric)) is not None)


def _axis(objective: Objective, trials: Sequence[Trial]) -> Axis:
    return axis_of(objective, [value for t in trials if (value := t.value(objective.metric)) is not None])


def draw_scatter_matrix(matrix: ScatterMatrix) -> go.Figure:
    """Return the figure: each objective along a column against each later one up a row."""
    size = len(matrix.axes) - 1
    if not any(matrix.values.values()):
        return blank("No completed trial has all objectives yet.")
    figure = make_subplots(
        rows=size,
        cols=size,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=0.02,
    )
    for row in range(size):
        for column in range(row + 1):
            _add_panel(figure, matrix, column, row + 1, (row + 1, column + 1))
    for place, axis in enumerate(matrix.axes):
        layout = _small(axis)
        if place < size:
            figure.update_xaxes(layout, col=place + 1)
            figure.update_xaxes(title=_title(axis), row=size, col=place + 1)
        if place > 0:
            figure.update_yaxes(layout, row=place)
            figure.update_yaxes(title=_title(axis), row=place, col=1)
    figure = styled(figure, 120 + _CELL * size, "matrix")
    return figure.update_layout(hovermode="closest", margin={"l": 84, "b": 84})


def _add_panel(figure: go.Figure, matrix: ScatterMatrix, x: int, y: int, at: tuple[int, int]) -> None:
    for name, look in _LOOKS.items():
        rows = matrix.values[name]
        if rows:
            figure.add_scatter(
                x=[matrix.axes[x].shown(row[x]) for row in rows],
                y=[matrix.axes[y].shown(row[y]) for row in rows],
                mode="markers",
                marker=dict(look),
                name=name,
                legendgroup=name,
                showlegend=at == (1, 1),
                hovertext=[f"trial {number}" for number in matrix.numbers[name]],
                hoverinfo="text",
                row=at[0],
                col=at[1],
            )


def _small(axis: Axis) -> dict[str, object]:
    """Return an axis with few ticks and no title."""
    shape = axis.layout(("", ""))
    ticks = shape.get("tickvals", [])
    if len(ticks) > 3:
        shape |= {"tickvals": ticks[:: len(ticks) // 3], "ticktext": shape["ticktext"][:: len(ticks) // 3]}
    return {**shape, "title": None, "nticks": 4}


def _title(axis: Axis) -> dict[str, object]:
    better = f"{'lower' if axis.lower_is_better else 'higher'} is better"
    unit = f" [{escaped(axis.scale.unit)}]" if axis.scale.unit else ""
    return {"text": f"{words(axis.metric)}{unit}<br>{better}", "font": {"size": 11}}
