"""One parameter against one objective: trials -> numbers -> figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboards import palette
from dashboards.axis import Axis, axis_of, log_ticks
from dashboards.figures import blank, styled
from dashboards.front import Standing, standing_of
from dashboards.hover import hover_text
from hpo.format import count_text, escaped, note_text, number_text, value_text, words
from hpo.metric import METRICS
from hpo.problem import bounds
from hpo.space import Choice, SearchSpace, Value
from hpo.trial import Objective, Trial, TrialState

MOST = 1500
"""Trials that are drawn; of more, the front and others taken evenly."""

_HEIGHT = 400
_JITTER = 0.5
"""Share of a category's width over which its points are spread."""

_GOLDEN = 0.6180339887498949
_MOST_CATEGORIES = 24
_LONGEST_NAME = 20

_LOOKS = {
    Standing.DOMINATED: (palette.GREY, "circle-open", 7),
    Standing.INCOMPLETE: (palette.GREY, "triangle-up", 8),
    Standing.BEYOND_LIMIT: (palette.VERMILLION, "x", 7),
    Standing.FRONT: (palette.BLUE, "circle", 10),
}
"""How a trial stands -> colour, shape and size, in the order in which they are drawn."""


@dataclass(frozen=True)
class Spot:
    """A completed trial that has the parameter and the objective."""

    trial: Trial
    standing: Standing
    x: float
    """The parameter's value; of a category, its place and a little to the side."""
    y: float
    """In the metric's unit."""


@dataclass(frozen=True)
class Slice:
    """A study seen in one parameter and one objective."""

    parameter: str
    y: Axis
    spots: tuple[Spot, ...]
    categories: tuple[str, ...]
    """What the places 0, 1, ... stand for; empty where the parameter is a number."""
    logarithmic: bool
    """Whether the parameter is searched on a logarithmic scale."""
    among: int
    """Completed trials, whether or not they have the parameter and the objective."""
    having: int
    """Those that have both; `spots` may be fewer."""
    objectives: tuple[Objective, ...]

    @property
    def words(self) -> str:
        """What is drawn, as a sentence."""
        if self.having == 0:
            return ""
        having = f"{self.having:,} of {count_text(self.among, 'completed trial')} have"
        rest = "" if len(self.spots) == self.having else f" ({len(self.spots):,} of them are drawn)"
        front = sum(spot.standing is Standing.FRONT for spot in self.spots)
        best = min(self.spots, key=lambda spot: spot.y if self.y.lower_is_better else -spot.y)
        value = note_text(_plain(best.trial.candidate.values[self.parameter]))
        return (
            f"{having} {self.parameter} and {words(self.y.metric)}{rest}; on the front: {front:,}. The best "
            f"{words(self.y.metric)}, {value_text(best.y, METRICS[self.y.metric].unit)}, was with {value} "
            f"(trial {best.trial.number})."
        )


def _plain(value: Value) -> float | str:
    return str(value) if isinstance(value, bool) else value


def parameters_of(space: SearchSpace, trials: Sequence[Trial]) -> list[str]:
    """Return what a slice can be made of: the parameters of the space that leave a choice, then what else
    candidates hold."""
    chosen = [name for name, p in space.parameters.items() if p.count != 1]
    held = dict.fromkeys(name for t in trials for name, _ in t.candidate.items)
    return chosen + sorted(name for name in held if name not in space.parameters)


def slice_of(
    space: SearchSpace, objectives: Sequence[Objective], trials: Sequence[Trial], parameter: str, metric: str
) -> Slice:
    """Return the slice of `parameter` and `metric`, one of the objectives.

    Raises:
        ValueError: the metric is no objective.
    """
    objective = next((o for o in objectives if o.metric == metric), None)
    if objective is None:
        raise ValueError(f"{metric} is no objective of this study")
    completed = [t for t in trials if t.state is TrialState.COMPLETED]
    having = [t for t in completed if parameter in t.candidate.values and t.value(metric) is not None]
    standings = standing_of(objectives, trials)
    drawn = _thinned(having, standings, objective)
    places = _places(space, parameter, having)
    bound = float(bounds([objective], trials)[0])
    return Slice(
        parameter=parameter,
        y=axis_of(
            objective,
            [value for t in having if (value := t.value(metric)) is not None],
            objective.loss(bound) if np.isfinite(bound) else None,
        ),
        spots=tuple(
            Spot(t, standings[t.number], _x(t, parameter, places), t.value(metric) or 0.0) for t in drawn
        ),
        categories=tuple(places),
        logarithmic=_is_logarithmic(space, parameter, having),
        among=len(completed),
        having=len(having),
        objectives=tuple(objectives),
    )


def _thinned(trials: Sequence[Trial], standings: Mapping[int, Standing], objective: Objective) -> list[Trial]:
    if len(trials) <= MOST:
        return list(trials)
    front = np.array([standings[t.number] is Standing.FRONT for t in trials])
    kept = np.flatnonzero(front)
    if len(kept) > MOST // 2:
        kept = kept[np.linspace(0, len(kept) - 1, MOST // 2).astype(int)]
    others = np.flatnonzero(~front)
    even = others[np.linspace(0, len(others) - 1, min(MOST - 1 - len(kept), len(others))).astype(int)]
    best = int(np.argmin([objective.loss(t.value(objective.metric) or 0.0) for t in trials]))
    return [trials[i] for i in np.union1d(np.union1d(kept, even), [best])]


def _places(space: SearchSpace, parameter: str, trials: Sequence[Trial]) -> dict[str, int]:
    """Return category -> place; empty for a number. A parameter outside the space is a number if all its
    values are."""
    known = space.parameters.get(parameter)
    if isinstance(known, Choice):
        values: Sequence[Value] = known.choices
    else:
        values = list(dict.fromkeys(t.candidate.values[parameter] for t in trials))
        if not any(isinstance(value, bool | str) for value in values):
            return {}
    return {name: place for place, name in enumerate(dict.fromkeys(map(str, values)))}


def _is_logarithmic(space: SearchSpace, parameter: str, trials: Sequence[Trial]) -> bool:
    known = space.parameters.get(parameter)
    if known is None or isinstance(known, Choice) or not known.log:
        return False
    # An anchor may hold a value that the space does not.
    return all(float(t.candidate.values[parameter]) > 0 for t in trials)


def _x(trial: Trial, parameter: str, places: Mapping[str, int]) -> float:
    value = trial.candidate.values[parameter]
    if not places:
        return float(value)
    # Multiples of the golden ratio spread evenly, and a trial always falls on the same place.
    aside = (trial.number * _GOLDEN) % 1.0 - 0.5
    return places.get(str(value), 0) + _JITTER * aside


def draw_slice(seen: Slice) -> go.Figure:
    """Return the figure of a slice; one that says why if there is nothing to draw."""
    if not seen.parameter:
        return blank("The search space leaves nothing to choose.", _HEIGHT)
    if not seen.spots:
        return blank(
            f"No completed trial has both {seen.parameter[:60]} and {words(seen.y.metric)} yet.", _HEIGHT
        )
    figure = go.Figure()
    for standing, (colour, shape, size) in _LOOKS.items():
        group = [spot for spot in seen.spots if spot.standing is standing]
        if group:
            figure.add_scatter(
                x=[spot.x for spot in group],
                y=[seen.y.shown(spot.y) for spot in group],
                mode="markers",
                marker={"color": colour, "symbol": shape, "size": size},
                hovertext=[hover_text(spot.trial, seen.objectives, str(standing)) for spot in group],
                hoverinfo="text",
                customdata=[spot.trial.number for spot in group],
                name=str(standing),
            )
    _add_limit(figure, seen.y)
    figure.update_layout(
        xaxis=_x_axis(seen),
        yaxis=seen.y.layout(("↓", "↑")) | {"automargin": True},
        hovermode="closest",
        showlegend=True,
    )
    return styled(figure, _HEIGHT, f"{seen.parameter}|{seen.y.metric}")


def _x_axis(seen: Slice) -> dict[str, Any]:
    title = {"text": escaped(seen.parameter[:80]), "standoff": 8}
    if seen.categories:
        names = seen.categories[:_MOST_CATEGORIES]
        return {
            "title": title,
            "tickvals": list(range(len(names))),
            "ticktext": [escaped(_short(name)) for name in names],
            "range": [-0.6, len(seen.categories) - 0.4],
            "automargin": True,
        }
    if not seen.logarithmic:
        return {"title": title}
    low = math.log10(min(spot.x for spot in seen.spots))
    high = math.log10(max(spot.x for spot in seen.spots))
    room = 0.05 * (high - low) or 0.1
    ticks = log_ticks(low - room, high + room)
    return {
        "title": title,
        "type": "log",
        "range": [low - room, high + room],
        "tickvals": ticks,
        "ticktext": [number_text(tick) for tick in ticks],
    }


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _add_limit(figure: go.Figure, y: Axis) -> None:
    if y.limit is None or not y.draws_limit:
        return
    at = y.shown(y.limit)
    line = {"color": palette.VERMILLION, "dash": "dash", "width": 1.5}
    figure.add_shape(type="line", line=line, x0=0, x1=1, xref="paper", y0=at, y1=at)
    figure.add_annotation(
        text="limit",
        showarrow=False,
        x=1,
        xref="paper",
        xanchor="right",
        y=math.log10(at) if y.logarithmic else at,
        yanchor="bottom",
    )
