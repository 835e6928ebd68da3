"""Whether a running trial is worth going on with: not if even its optimistic outcome is beaten already."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hpo.pareto import Frame
from hpo.problem import Problem, dense_trial, within_limits
from hpo.search.outcomes import NoModel, box
from hpo.search.pool import Pool
from hpo.search.tiers import Forecaster, seen
from hpo.trial import Trial

Array = NDArray[np.float64]

_AGED = 1.1
"""Growth of a study at which models are fitted again."""

CONFIDENCE = 0.95
"""With which each bound is below what the trial would come to, if it is like those before it."""


@dataclass
class Screening:
    """The rule by which trials are stopped before they are measured.

    A bound for each objective: what the plan says where it is exact, else what the trial's tiers let one
    expect, less an error that only ``1 - confidence`` of the study's own trials exceeded. If a finished trial
    that keeps the limits is as good as all the bounds and better than one, or a bound is beyond a limit, the
    trial is stopped. Anchors and candidates that a person gave are never stopped.

    Its models are fitted again when the study has grown by a tenth; what they are compared with is always up
    to date.
    """

    problem: Problem
    confidence: float = CONFIDENCE
    _models: dict[tuple[str, ...], Forecaster | None] = field(default_factory=dict, init=False)
    _finished: int = field(default=0, init=False)

    def verdict(self, history: Sequence[Trial], trial: Trial) -> str:
        """Return why a trial is to be stopped, empty if it is to go on. `history` may hold the trial."""
        if trial.origin.startswith(("anchor", "given")) or dense_trial(history) is None:
            return ""
        shown = seen(self.problem, trial)
        forecaster = self._forecaster(history, shown) if shown else None
        pool = Pool.of(self.problem, [trial.candidate])
        if forecaster is None or not len(pool):
            return ""
        expected = forecaster.expected([trial])[0]
        bounds = np.full(len(self.problem.objectives), -np.inf)
        metrics = [objective.metric for objective in self.problem.objectives]
        bounds[[metrics.index(name) for name in self.problem.exact]] = pool.exact[0]
        for place, found in expected.items():
            bounds[place] = found.bound(self.confidence)
        return self._beaten(history, bounds)

    def _beaten(self, history: Sequence[Trial], bounds_M: Array) -> str:
        objectives = self.problem.objectives
        limits = self.problem.bounds(history)
        for objective, bound, limit in zip(objectives, bounds_M, limits, strict=True):
            if bound > limit:
                return f"{objective.metric} will be {self._value(objective.loss(bound), objective.metric)}"
        kept = within_limits(objectives, history)
        rivals = [t for t, keeps in zip(history, kept, strict=True) if keeps]
        losses = self.problem.losses(rivals)
        beaten = (losses <= bounds_M).all(axis=1) & (losses < bounds_M).any(axis=1)
        if not beaten.any():
            return ""
        rival = rivals[int(np.flatnonzero(beaten)[0])]
        return f"trial {rival.number} is better in everything than this one may be expected to be"

    def _value(self, value: float, metric: str) -> str:
        return f"{value:.4g} at best, beyond its limit, at a confidence of {self.confidence:.0%}"

    def _forecaster(self, history: Sequence[Trial], shown: tuple[str, ...]) -> Forecaster | None:
        finished = sum(trial.state.is_final for trial in history)
        if finished >= _AGED * self._finished or finished < self._finished:
            self._models.clear()
            self._finished = finished
        if shown not in self._models:
            try:
                frame: Frame = box(self.problem, history)
                self._models[shown] = Forecaster.of(self.problem, history, shown, frame)
            except NoModel:
                self._models[shown] = None
        return self._models[shown]
