"""How promising candidates are: what they would add to the front, by a model of what they come to.

Letters: S samples, N candidates, M objectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hpo.pareto import Frame, nondominated
from hpo.problem import Problem
from hpo.search.acquisition import MANY_OBJECTIVES, best_improvements, scalar_improvement, shortfall
from hpo.search.cost import Cost
from hpo.search.lessons import TOLD
from hpo.search.outcomes import NoModel, box
from hpo.search.pool import Pool, previewed
from hpo.search.surrogate import Surrogate
from hpo.trial import Trial

Array = NDArray[np.float64]

_SAMPLES = 32
"""Joint samples of the losses by which candidates are judged."""
_GLANCE = 12
"""Samples for a first look at many."""


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges by the expected improvement of the front, or of a random scalarisation of many objectives."""

    surrogate: Surrogate
    cost: Cost | None
    """None: all candidates are taken to cost the same."""
    frame: Frame
    rivals: Pool
    """Completed trials that may be on the front, and those under way."""
    weights: Array
    """(M,) of the scalarisation that stands in for a hypervolume of many objectives."""
    rng: np.random.Generator

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial], rng: np.random.Generator) -> Self:
        """Learn from a history.

        Raises:
            NoModel: there is too little to learn from.
        """
        frame = box(problem, history)
        surrogate = Surrogate.of(problem, history, frame)
        under_way = previewed(problem, [trial for trial in history if not trial.state.is_final])[1]
        rivals = _rivals(surrogate, frame, rng).joined(under_way)
        weights = rng.dirichlet(np.ones(len(problem.objectives)))
        return cls(surrogate, _cost(problem, history, surrogate), frame, rivals, weights, rng)

    def after(self, chosen: Pool) -> Self:
        """Return a judge for whom these candidates are under way too."""
        weights = self.rng.dirichlet(np.ones_like(self.weights))
        return replace(self, rivals=self.rivals.joined(chosen), weights=weights)

    def glance(self, pool: Pool) -> Array:
        """Return roughly how promising each candidate is, shape (N,)."""
        return self.scores(pool, _GLANCE)

    def scores(self, pool: Pool, samples: int = _SAMPLES) -> Array:
        """Return how promising each candidate is, shape (N,); larger is better."""
        losses = self.surrogate.losses(self.rivals.joined(pool), samples, self.rng)
        normalised = self.frame.normalised(losses)
        before, points = normalised[:, : len(self.rivals)], normalised[:, len(self.rivals) :]
        chances = self.surrogate.chances(pool)
        worth = chances / (1.0 if self.cost is None else self.cost.seconds(pool))
        if len(self.weights) < MANY_OBJECTIVES:
            gains = best_improvements(before, points, worth)
        else:
            gains = scalar_improvement(before, points, self.weights) * worth
        return gains if gains.max() > 0 else chances - 1 - shortfall(before, points)


def _rivals(surrogate: Surrogate, frame: Frame, rng: np.random.Generator) -> Pool:
    """Return the completed trials that are on the front of at least one sample of what they truly are.

    The rest take no part in any front, and would only make samples dearer.
    """
    record = surrogate.record
    pool = record.pool.take(record.chosen(np.flatnonzero(record.completed), TOLD))
    samples = frame.normalised(surrogate.losses(pool, _SAMPLES, rng))
    possible = np.zeros(len(pool), dtype=bool)
    for sample in samples:
        inside = np.flatnonzero((sample < 1).all(axis=1))
        possible[inside[nondominated(sample[inside])]] = True
    return pool.take(np.flatnonzero(possible))


def _cost(problem: Problem, history: Sequence[Trial], surrogate: Surrogate) -> Cost | None:
    """Return what is expected of seconds; None where they do not matter or nothing is known of them."""
    if problem.spends == "trials":
        return None
    try:
        return Cost.of(problem, history, surrogate.inputs)
    except NoModel:
        return None
