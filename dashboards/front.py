"""The front of a study in two of its objectives: trials -> numbers. Drawn in `front_figure`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dashboards.axis import Axis, axis_of
from dashboards.hover import hover_text
from hpo.metric import Source, metric
from hpo.pareto import Array, Mask, knee, nondominated
from hpo.problem import bounds, losses, on_front
from hpo.trial import Objective, Trial, TrialState

Point = tuple[float, float]


class Standing(StrEnum):
    """How a completed trial stands among the others, judged in all objectives of the study."""

    FRONT = "front"
    DOMINATED = "dominated"
    BEYOND_LIMIT = "breaks a limit"
    INCOMPLETE = "lacks an objective"


@dataclass(frozen=True)
class Mark:
    """A completed trial that has both metrics. Values and spreads are in the metrics' units."""

    number: int
    standing: Standing
    anchor: str
    """``dense``, ``int8``, ...; empty for a trial that was searched."""
    x: float
    y: float
    x_spread: float
    y_spread: float
    modelled: bool
    """One of the two values is modelled, not measured."""
    hover: str


@dataclass(frozen=True)
class FrontView:
    """Everything that is drawn of a front in two metrics."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    stairs: tuple[Point, ...]
    """Corners of the attainment line of the two metrics shown, in the metrics' units."""
    knee: int | None
    """Number of the trial that is the knee in all objectives; None below three front members."""
    objectives: int
    hidden: Mapping[str, int]
    """Why trials are not drawn -> how many."""

    @property
    def members(self) -> tuple[Mark, ...]:
        return tuple(mark for mark in self.marks if mark.standing is Standing.FRONT)


def front_view(
    objectives: Sequence[Objective], trials: Sequence[Trial], x: str, y: str, most: int | None = None
) -> FrontView:
    """Return the front of a study's `objectives` as seen in the metrics `x` and `y`.

    The two may be any metrics that were measured; the front is always that of the objectives.

    Args:
        most: marks to return beside the front and the anchors; None for all.

    Raises:
        UsageError: x or y is no metric.
    """
    x_objective, y_objective = _objective(objectives, x), _objective(objectives, y)
    drawn = [t for t in trials if _is_drawn(t, x, y)]
    standings = standing_of(objectives, trials)
    marked = drawn if most is None else _thinned(drawn, standings, most)
    marks = tuple(_mark(t, standings[t.number], objectives, x, y) for t in marked)
    return FrontView(
        x=_axis(x_objective, trials, drawn),
        y=_axis(y_objective, trials, drawn),
        marks=marks,
        stairs=_stairs((x_objective, y_objective), drawn, standings),
        knee=_knee(objectives, [t for t in trials if standings.get(t.number) is Standing.FRONT]),
        objectives=len(objectives),
        hidden=_hidden(trials, x, y),
    )


def _thinned(drawn: Sequence[Trial], standings: Mapping[int, Standing], most: int) -> list[Trial]:
    """Return the front, the anchors, and at most so many of the others, evenly taken."""
    chief = {t.number for t in drawn if standings[t.number] is Standing.FRONT or anchor_name(t)}
    rest = [t.number for t in drawn if t.number not in chief]
    step = max(1, -(-len(rest) // most)) if most else len(rest) + 1
    shown = chief | set(rest[::step] if most else ())
    return [t for t in drawn if t.number in shown]


def standing_of(objectives: Sequence[Objective], trials: Sequence[Trial]) -> dict[int, Standing]:
    """Return how each completed trial stands, by number."""
    completed = [trial for trial in trials if trial.state is TrialState.COMPLETED]
    losses_NM = losses(objectives, completed)
    beyond: Mask = np.any(losses_NM > bounds(objectives, trials), axis=1)
    incomplete: Mask = np.any(np.isnan(losses_NM), axis=1)
    inside = np.flatnonzero(~beyond & ~incomplete)
    front = np.zeros(len(completed), dtype=bool)
    front[inside[nondominated(losses_NM[inside])]] = True
    columns = zip(completed, front.tolist(), beyond.tolist(), incomplete.tolist(), strict=True)
    return {trial.number: _standing(on, out, lacks) for trial, on, out, lacks in columns}


def _standing(front: bool, beyond: bool, incomplete: bool) -> Standing:
    if front:
        return Standing.FRONT
    if beyond:
        return Standing.BEYOND_LIMIT
    return Standing.INCOMPLETE if incomplete else Standing.DOMINATED


def knee_of(objectives: Sequence[Objective], trials: Sequence[Trial]) -> int | None:
    """Return the number of the knee of the front, None where it has less than three members."""
    return _knee(
        objectives, [t for t, kept in zip(trials, on_front(objectives, trials), strict=True) if kept]
    )


def _knee(objectives: Sequence[Objective], front: Sequence[Trial]) -> int | None:
    return front[knee(losses(objectives, front))].number if len(front) >= 3 else None


def staircase(losses_N2: Array, corner: Point) -> list[Point]:
    """Return the corners of the attainment line of N points in two losses, up to `corner`.

    The line is the edge of the region in which some point is at least as good in both losses
    (Fonseca and Fleming, 1996). It starts at the corner's second loss and ends at its first.
    """
    best = np.unique(losses_N2[nondominated(losses_N2)], axis=0)
    if len(best) == 0:
        return []
    line = [(float(best[0, 0]), corner[1])]
    for here, after in zip(best, [*best[1:], None], strict=True):
        line.append((float(here[0]), float(here[1])))
        line.append((corner[0] if after is None else float(after[0]), float(here[1])))
    return line


def _objective(objectives: Sequence[Objective], name: str) -> Objective:
    return next((o for o in objectives if o.metric == name), None) or Objective(metric=metric(name).name)


def _is_drawn(trial: Trial, x: str, y: str) -> bool:
    measured = trial.value(x) is not None and trial.value(y) is not None
    return measured and trial.state is TrialState.COMPLETED


def _axis(objective: Objective, trials: Sequence[Trial], drawn: Sequence[Trial]) -> Axis:
    found = [m for t in drawn if (m := t.measurement(objective.metric)) is not None]
    bound = float(bounds([objective], trials)[0])
    return axis_of(
        objective,
        [m.value for m in found],
        objective.loss(bound) if np.isfinite(bound) else None,
        modelled=any(m.source is Source.MODELLED for m in found),
    )


def _mark(trial: Trial, standing: Standing, objectives: Sequence[Objective], x: str, y: str) -> Mark:
    here, there = trial.measurement(x), trial.measurement(y)
    if here is None or there is None:
        raise ValueError(f"trial {trial.number} lacks {x} or {y}")
    return Mark(
        number=trial.number,
        standing=standing,
        anchor=anchor_name(trial),
        x=here.value,
        y=there.value,
        x_spread=here.spread,
        y_spread=there.spread,
        modelled=Source.MODELLED in (here.source, there.source),
        hover=hover_text(trial, [*objectives, *_others(objectives, x, y)], standing),
    )


def anchor_name(trial: Trial) -> str:
    """Return ``dense`` of ``anchor:dense``; empty where the trial is no anchor."""
    kind, _, name = trial.origin.partition(":")
    return (name or kind) if kind == "anchor" else ""


def _others(objectives: Sequence[Objective], *names: str) -> list[Objective]:
    known = {o.metric for o in objectives}
    return [Objective(metric=name) for name in dict.fromkeys(names) if name not in known]


def _stairs(
    pair: tuple[Objective, Objective], drawn: Sequence[Trial], standings: Mapping[int, Standing]
) -> tuple[Point, ...]:
    if not drawn:
        return ()
    losses_N2 = losses(pair, drawn)
    corner = (float(losses_N2[:, 0].max()), float(losses_N2[:, 1].max()))
    kept = [standings[t.number] in (Standing.FRONT, Standing.DOMINATED) for t in drawn]
    line = staircase(losses_N2[kept], corner)
    return tuple((pair[0].loss(x), pair[1].loss(y)) for x, y in line)


def _hidden(trials: Sequence[Trial], x: str, y: str) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for trial in trials:
        if trial.state is not TrialState.COMPLETED:
            reasons[str(trial.state)] += 1
        elif not _is_drawn(trial, x, y):
            reasons["without these two metrics"] += 1
    return dict(reasons)
