"""Whether the search's own model can be trusted: what it foretold of each trial against what came: numbers ->
figure. A trial was left out of the model that foretold it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from dashboards import palette
from dashboards.axis import Axis, axis_of
from dashboards.figures import blank, styled
from hpo.format import count_text, percent_text, value_text, words
from hpo.metric import METRICS
from hpo.skill import Foretold, Skill
from hpo.trial import Objective

NOMINAL = 0.9
"""Share of the outcomes that the model's interval promises to hold."""

NOT_KEPT = "What was foretold of each trial was not kept with this model; the table is all there is."

_HEIGHT = 340
_MOST_POINTS = 2000


@dataclass(frozen=True)
class Calibration:
    """The model of one objective, judged trial by trial. Values are in the metric's unit."""

    metric: str
    trials: int
    """How many were judged; `points` may be fewer."""
    inside: int
    """How many of them came out within the model's interval."""
    usual: tuple[int, int]
    """How many do in 95 of 100 cases, if the interval holds what it promises."""
    points: tuple[Foretold, ...]
    logarithmic: bool

    @property
    def words(self) -> str:
        """Promised against actual coverage, as a sentence."""
        low, high = self.usual
        usual = f"{low}" if low == high else f"{low} to {high}"
        verdict = "which agrees with what it promises"
        if self.inside < low:
            verdict = "so it is too sure of itself"
        elif self.inside > high:
            verdict = "so it is more careful than it need be"
        return (
            f"{words(self.metric)}: {self.inside} of {count_text(self.trials, 'trial')} "
            f"({percent_text(self.inside / self.trials)}) came out within the interval that promises "
            f"{percent_text(NOMINAL)} (usual would be {usual}), {verdict}."
        )

    @property
    def shown(self) -> str:
        """What of the trials is drawn, where it is not all of them."""
        if len(self.points) == self.trials:
            return ""
        return f"{words(self.metric)}: {len(self.points):,} of {count_text(self.trials, 'trial')} are drawn."


def calibrations(skills: Sequence[Skill]) -> tuple[Calibration, ...]:
    """Return how well each model was calibrated; the points of all of them fit on one page."""
    most = _MOST_POINTS // max(len(skills), 1)
    return tuple(_calibration(skill, skill.foretold[-most:]) for skill in skills)


def _calibration(skill: Skill, points: tuple[Foretold, ...]) -> Calibration:
    values = [value for p in points for value in (p.measured, p.expected)]
    ends = [value for p in points for value in (p.low, p.high)]
    # An interval that reaches below 0 has no place on a logarithmic axis.
    positive = bool(values) and min(*values, *ends) > 0
    return Calibration(
        metric=skill.metric,
        trials=skill.trials,
        inside=round(skill.coverage * skill.trials),
        usual=usual_count(skill.trials, NOMINAL),
        points=points,
        logarithmic=positive and axis_of(Objective(metric=skill.metric), values).logarithmic,
    )


def usual_count(trials: int, share: float, within: float = 0.95) -> tuple[int, int]:
    """Return the ends of the middle `within` of a binomial count of so many trials, each with probability
    `share`: at most half of what is left lies below, and at most half above."""
    tail = (1 - within) / 2
    total, low, high = 0.0, 0, trials
    for count in range(trials + 1):
        before, total = total, total + _binomial(trials, count, share)
        if before <= tail:
            low = count
        if total >= 1 - tail - 1e-12:
            high = count
            break
    return low, high


def _binomial(trials: int, count: int, share: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(share) + (trials - count) * math.log1p(-share))


def draw_calibration(calibration: Calibration) -> go.Figure:
    """Return the figure of one objective: foretold, with its interval, over what came out; the diagonal."""
    if not calibration.points:
        return blank(NOT_KEPT)
    axis = _axis(calibration)
    figure = go.Figure()
    _add_diagonal(figure, axis)
    outside = [p for p in calibration.points if not p.low <= p.measured <= p.high]
    inside = [p for p in calibration.points if p.low <= p.measured <= p.high]
    _add_points(figure, axis, inside, "within the interval", palette.BLUE, "circle")
    _add_points(figure, axis, outside, "outside it", palette.VERMILLION, "x")
    name = f"{words(calibration.metric)} [{axis.scale.unit}]"
    measured, foretold = axis.layout(("", "")), axis.layout(("", ""))
    measured["title"] = {"text": f"{name}, as it came out", "standoff": 8}
    foretold["title"] = {"text": "as foretold"}
    figure.update_layout(xaxis=measured, yaxis=foretold, hovermode="closest", showlegend=True)
    return styled(figure, _HEIGHT, calibration.metric)


def _axis(calibration: Calibration) -> Axis:
    """Return one axis for both directions, which holds every point; intervals may leave it."""
    values = [value for p in calibration.points for value in (p.measured, p.expected)]
    axis = axis_of(Objective(metric=calibration.metric), values)
    return replace(axis, logarithmic=calibration.logarithmic)


def _add_diagonal(figure: go.Figure, axis: Axis) -> None:
    ends = [axis.shown(axis.low), axis.shown(axis.high)]
    figure.add_scatter(
        x=ends,
        y=ends,
        mode="lines",
        line={"color": palette.GREY, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
        name="as foretold",
    )


def _add_points(
    figure: go.Figure, axis: Axis, points: Sequence[Foretold], name: str, colour: str, shape: str
) -> None:
    if not points:
        return
    figure.add_scatter(
        x=[axis.shown(p.measured) for p in points],
        y=[axis.shown(p.expected) for p in points],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [axis.shown(max(p.high - p.expected, 0.0)) for p in points],
            "arrayminus": [axis.shown(max(p.expected - p.low, 0.0)) for p in points],
            "color": colour,
            "thickness": 1,
            "width": 2,
        },
        mode="markers",
        marker={"color": colour, "symbol": shape, "size": 7},
        hovertext=[_hover(p, METRICS[axis.metric].unit) for p in points],
        hoverinfo="text",
        customdata=[p.trial for p in points],
        name=name,
    )


def _hover(point: Foretold, unit: str) -> str:
    low, high = value_text(point.low, unit, point.measured), value_text(point.high, unit, point.measured)
    return (
        f"<b>trial {point.trial}</b><br>came out as {value_text(point.measured, unit)}<br>"
        f"foretold {value_text(point.expected, unit, point.measured)}<br>90 % interval {low} to {high}"
    )
