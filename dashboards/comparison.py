"""Studies side by side: trials -> numbers that are alike for all of them.

Every study is judged in the same objectives and the same box, and by the same rule: completed trials with
every objective measured, none beyond the box. The limits that a study set for itself are left aside, or one
with tighter limits would look worse for keeping them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpo.errors import UsageError
from hpo.format import words
from hpo.metric import Source
from hpo.pareto import Array, Frame, Mask, nondominated
from hpo.problem import frame, losses
from hpo.study import Study
from hpo.trial import Measurement, Objective, Trial, TrialState

Kind = Literal["all", "hours", "trials"]
"""What studies are cut to: nothing, the same worker hours, the same number of trials."""

MOST = 8
"""Studies that can be told apart in one figure."""


@dataclass(frozen=True)
class Run:
    """The final trials of a study in the order in which they finished. N trials, M objectives."""

    name: str
    losses: Array
    """(N, M), smaller is better; NaN where a trial did not complete or lacks a value."""
    hours_after: Array
    """(N,) worker hours spent until then, those of failed and stopped trials included."""
    numbers: NDArray[np.int64]
    """(N,)"""
    box: Frame | None
    """The study's own comparison box."""
    devices: Mapping[str, frozenset[str]]
    """Metric -> the devices it was measured on; exact metrics have none."""
    sources: Mapping[str, frozenset[Source]]
    """Metric -> how its values came to be."""

    def __post_init__(self) -> None:
        if not len(self.losses) == len(self.hours_after) == len(self.numbers):
            raise ValueError(
                f"{len(self.losses)} losses, {len(self.hours_after)} hours and {len(self.numbers)} numbers"
            )

    @property
    def hours(self) -> float:
        return float(self.hours_after[-1]) if len(self.hours_after) else 0.0

    @property
    def trials(self) -> int:
        return len(self.numbers)

    def spent(self, kind: Kind) -> float:
        """Return what it has spent, in `kind`."""
        return self.hours if kind == "hours" else float(self.trials)

    def cut(self, kind: Kind, at: float) -> "Run":
        """Return the study as it was when it had spent `at` worker hours or trials; a trial that would go
        beyond is not in it."""
        if kind == "all":
            return self
        count = (
            int(at) if kind == "trials" else int(np.searchsorted(self.hours_after, at * (1 + 1e-12), "right"))
        )
        first = slice(0, count)
        return replace(
            self, losses=self.losses[first], hours_after=self.hours_after[first], numbers=self.numbers[first]
        )

    def inside(self, box: Frame | None) -> Mask:
        """Return which trials completed, have all objectives and are not beyond the box, (N,)."""
        # NaN is never at or below anything, infinity included.
        corner = np.inf if box is None else np.asarray(box.reference)
        mask: Mask = np.all(np.isfinite(self.losses) & (self.losses <= corner), axis=1)
        return mask


def common_objectives(studies: Sequence[Study]) -> tuple[Objective, ...]:
    """Return the objectives of the first study, which must be those of all, in whatever order.

    Raises:
        UsageError: a study has others; it says which.
    """
    first, *others = studies
    wanted = {o.metric for o in first.objectives}
    for study in others:
        found = {o.metric for o in study.objectives}
        if found != wanted:
            raise UsageError(
                f"{first.name} and {study.name} have no common objectives: "
                f"{_differ(first.name, wanted - found, study.name, found - wanted)}",
                "compare studies that measure the same",
            )
    return first.objectives


def _differ(first: str, only_first: set[str], second: str, only_second: set[str]) -> str:
    sides = ((first, only_first), (second, only_second))
    return "; ".join(f"only {name} has {', '.join(map(words, sorted(only)))}" for name, only in sides if only)


def run_of(study: Study, trials: Sequence[Trial], objectives: Sequence[Objective]) -> Run:
    """Return a study's trials in the order of `objectives`, whose metrics are its own."""
    own = {o.metric: o for o in study.objectives}
    over = sorted(
        (t for t in trials if t.state.is_final), key=lambda trial: (trial.finished_at or 0.0, trial.number)
    )
    losses_NM = losses(objectives, over)
    had: dict[str, list[Measurement]] = {o.metric: [] for o in objectives}
    for trial in over:
        for m in trial.measurements if trial.state is TrialState.COMPLETED else ():
            if m.metric in had:
                had[m.metric].append(m)
    losses_NM[[t.state is not TrialState.COMPLETED for t in over]] = np.nan
    return Run(
        name=study.name,
        losses=losses_NM,
        hours_after=np.cumsum(np.array([t.seconds for t in over], dtype=float)) / 3600,
        numbers=np.array([t.number for t in over], dtype=np.int64),
        box=frame([own[o.metric] for o in objectives], trials),
        devices={metric: frozenset(m.device for m in found if m.device) for metric, found in had.items()},
        sources={metric: frozenset(m.source for m in found) for metric, found in had.items()},
    )


def common_box(runs: Sequence[Run]) -> Frame | None:
    """Return the box that contains those of all studies, by the most generous reference point and the best
    ideal one; None while no study has a box."""
    boxes = [run.box for run in runs if run.box is not None]
    if not boxes:
        return None
    ideal = np.min([box.ideal for box in boxes], axis=0)
    reference = np.max([box.reference for box in boxes], axis=0)
    return Frame(tuple(map(float, ideal)), tuple(map(float, reference)))


@dataclass(frozen=True)
class Share:
    """A study beside the others."""

    name: str
    trials: int
    """Final ones."""
    hours: float
    """Of its workers."""
    front: int
    """Different points on its front."""
    hypervolume: float | None
    """Share of the common box; None while there is none."""
    given: int
    """Points on the front of all studies together that it has, alone or not."""
    alone: int
    """Those of them that no other study has."""
    lost: float | None
    """Share of the box by which the front of all would shrink without it."""


@dataclass(frozen=True)
class Comparison:
    """Studies in one box."""

    shares: tuple[Share, ...]
    union: int
    """Different points on the front of all studies together."""
    hypervolume: float | None
    box: Frame | None


def compare(runs: Sequence[Run], box: Frame | None) -> Comparison:
    """Return how the runs do in `box`, each and all together."""
    fronts = [_front(run.losses[run.inside(box)]) for run in runs]
    union = _front(np.concatenate(fronts)) if fronts else np.empty((0, 0))
    whole = None if box is None else box.hypervolume(union)
    keys = [_keys(front) for front in fronts]
    best = _keys(union)
    shares = []
    for i, (run, front) in enumerate(zip(runs, fronts, strict=True)):
        others = set().union(*(keys[j] for j in range(len(runs)) if j != i))
        given = keys[i] & best
        alone = given - others
        shares.append(
            Share(
                name=run.name,
                trials=run.trials,
                hours=run.hours,
                front=len(front),
                hypervolume=None if box is None else box.hypervolume(front),
                given=len(given),
                alone=len(alone),
                lost=_lost(box, whole, fronts, i, any_alone=bool(alone)),
            )
        )
    return Comparison(tuple(shares), len(union), whole, box)


def _lost(
    box: Frame | None, whole: float | None, fronts: Sequence[Array], without: int, *, any_alone: bool
) -> float | None:
    if box is None or whole is None:
        return None
    rest = [front for i, front in enumerate(fronts) if i != without]
    if not any_alone or not rest:
        return whole if not rest else 0.0
    return max(0.0, whole - box.hypervolume(_front(np.concatenate(rest))))


def _front(losses_NM: Array) -> Array:
    """Return the points that no other dominates, each once, in lexical order."""
    if len(losses_NM) == 0:
        return losses_NM
    if losses_NM.shape[1] == 1:
        lowest: Array = losses_NM.min(axis=0, keepdims=True)
        return lowest
    best: Array = np.unique(losses_NM[nondominated(losses_NM)], axis=0)
    return best


def _keys(losses_NM: Array) -> set[bytes]:
    return {row.tobytes() for row in np.ascontiguousarray(losses_NM + 0.0)}
