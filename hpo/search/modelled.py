"""Choose candidates by a model: look widely, then closely around the best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.pareto import Frame, nondominated
from hpo.problem import Problem
from hpo.search.acquisition import MANY_OBJECTIVES, hypervolume_improvement, scalar_improvement, shortfall
from hpo.search.cost import Cost
from hpo.search.generate import children
from hpo.search.outcomes import NoModel, box
from hpo.search.pool import Gate, Pool, fresh, previewed
from hpo.search.surrogate import Surrogate, reproducible
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]

_POOL = 384
"""Quasi-random candidates looked at for each one asked for, and as many variations of the front."""
_SAMPLES = 32
"""Joint samples of the losses by which candidates are judged."""
_ROUNDS = 3
"""Of local search: the best are varied, and judged anew together with their variations."""
_KEPT, _PARENTS, _CHILDREN = 24, 8, 128


def propose(
    problem: Problem, history: Sequence[Trial], start: Sequence[Candidate], count: int, seed: int
) -> list[Candidate]:
    """Return `start` and as many candidates after it as make `count`, or all there are.

    Raises:
        NoModel: there is too little to learn from.
    """
    rng = np.random.default_rng([seed, len(history)])
    gate, chosen = Gate.of(problem, history), Pool.of(problem, start)
    known = _known(problem, history)
    with reproducible(seed):
        frame = box(problem, history)
        pool = _pool(gate.without(chosen), history, rng)
        surrogate = Surrogate.of(problem, history, frame, pool) if len(pool) else None
        cost = _cost(problem, history, surrogate) if surrogate is not None else None
        while surrogate and len(pool):
            weights = rng.dirichlet(np.ones(len(problem.objectives)))
            judge = _Judge(surrogate, cost, frame, known.joined(chosen), weights, rng)
            chosen = chosen.joined(_best(judge, gate.without(chosen).without(pool), pool, rng))
            if len(chosen) == count:
                break
            pool = _pool(gate.without(chosen), history, rng)
    return list(chosen.candidates)


@dataclass(frozen=True)
class _Judge:
    surrogate: Surrogate
    cost: Cost | None
    """None: all candidates are taken to cost the same."""
    frame: Frame
    known: Pool
    """Completed trials and those under way."""
    weights: Array
    """(M,) of the scalarisation that stands in for a hypervolume of many objectives."""
    rng: np.random.Generator

    def scores(self, pool: Pool) -> Array:
        """Return how promising each candidate is, shape (N,); larger is better."""
        losses = self.surrogate.losses(self.known.joined(pool), _SAMPLES, self.rng)
        normalised = self.frame.normalised(losses)
        before, points = normalised[:, : len(self.known)], normalised[:, len(self.known) :]
        if len(self.weights) < MANY_OBJECTIVES:
            gains = hypervolume_improvement(before, points)
        else:
            gains = scalar_improvement(before, points, self.weights)
        chances = self.surrogate.chances(pool)
        if gains.max() <= 0:
            return chances - 1 - shortfall(before, points)
        return gains * chances / (1.0 if self.cost is None else self.cost.seconds(pool))


def _cost(problem: Problem, history: Sequence[Trial], surrogate: Surrogate) -> Cost | None:
    """Return what is expected of seconds; None where they do not matter or nothing is known of them."""
    if problem.spends == "trials":
        return None
    try:
        return Cost.of(problem, history, surrogate.inputs)
    except NoModel:
        return None


def _best(judge: _Judge, gate: Gate, pool: Pool, rng: np.random.Generator) -> Pool:
    """Return a pool of the one candidate that scores best after a few rounds of local search."""
    scores = judge.scores(pool)
    for _ in range(_ROUNDS):
        pool = pool.take(np.argsort(-scores, kind="stable")[:_KEPT])
        parents = pool.candidates[:_PARENTS]
        young = gate.admit(children(gate.problem.space, parents, _CHILDREN, rng))
        gate, pool = gate.without(young), pool.joined(young)
        scores = judge.scores(pool)
    return pool.take([int(np.argmax(scores))])


def _pool(gate: Gate, history: Sequence[Trial], rng: np.random.Generator) -> Pool:
    """Return candidates from everywhere and near the front.

    No corners of the space: anchors are there already, and a model of few trials is so unsure of corners
    that it would look at nothing else.
    """
    space = gate.problem.space
    pool = fresh(gate, _POOL, int(rng.integers(2**31))).first(_POOL)
    completed = [trial for trial in history if trial.state is TrialState.COMPLETED]
    on_front = nondominated(gate.problem.losses(completed))
    parents = [
        trial.candidate
        for trial, best in zip(completed, on_front, strict=True)
        if best and space.contains(trial.candidate)
    ]
    return pool.joined(gate.without(pool).admit(children(space, parents, _POOL, rng)))


def _known(problem: Problem, history: Sequence[Trial]) -> Pool:
    alive = [t for t in history if t.state is TrialState.COMPLETED or not t.state.is_final]
    return previewed(problem, alive)[1]
