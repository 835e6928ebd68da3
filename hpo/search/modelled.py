"""Choose candidates by a model: look widely, then closely around the best."""

import gc
import logging
import time
from collections.abc import Sequence

import numpy as np

from hpo.pareto import nondominated
from hpo.problem import Problem
from hpo.search.generate import children
from hpo.search.judge import Judge
from hpo.search.pool import Gate, Pool, fresh
from hpo.search.process import reproducible
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

_log = logging.getLogger(__name__)

_POOL = 384
"""Quasi-random candidates looked at, and as many variations of the front."""
_SHORT = 96
"""The best of them by a first look, from among which a batch is chosen one by one."""
_ROUNDS = 3
"""Of local search: the best are varied, and judged anew together with their variations."""
_KEPT, _PARENTS, _CHILDREN = 24, 8, 128
_MANY = 300
"""Trials from which the matrices of processes are worth collecting at once: they hang in circles, and at
1,000 trials every ask would leave 100 MB behind for long."""
PATIENCE_S = 120.0
"""After which no more candidates of a batch are chosen by the model."""


def propose(
    problem: Problem, history: Sequence[Trial], start: Sequence[Candidate], count: int, seed: int
) -> list[Candidate]:
    """Return `start` and as many candidates after it as make `count`, or all there are.

    Raises:
        NoModel: there is too little to learn from.
    """
    rng = np.random.default_rng([seed, len(history)])
    gate, chosen = Gate.of(problem, history), Pool.of(problem, start)
    pool = _pool(gate.without(chosen), history, rng)
    if not len(pool):
        return list(chosen.candidates)
    with reproducible(seed):
        deadline = time.monotonic() + PATIENCE_S
        judge = Judge.of(problem, history, rng).after(chosen)
        while len(chosen) < count and len(pool) and time.monotonic() < deadline:
            pool = pool.take(np.argsort(-judge.glance(pool), kind="stable")[:_SHORT])
            found = _best(judge, gate.without(chosen), pool, rng)
            chosen, judge = chosen.joined(found), judge.after(found)
            pool = pool.take([i for i, plan in enumerate(pool.plans) if plan not in found.plans])
            pool = pool if len(pool) else _pool(gate.without(chosen), history, rng)
    if len(history) > _MANY:
        gc.collect()
    if len(chosen) < count and len(pool):
        chosen = chosen.joined(_hurried(gate.without(chosen), count - len(chosen), rng))
    return list(chosen.candidates)


def _hurried(gate: Gate, count: int, rng: np.random.Generator) -> Pool:
    """Return quasi-random candidates in place of those that there was no time to choose."""
    _log.warning(
        "choosing took longer than %g s; the last %d of the batch are quasi-random", PATIENCE_S, count
    )
    return fresh(gate, count, int(rng.integers(2**31))).first(count)


def _best(judge: Judge, gate: Gate, pool: Pool, rng: np.random.Generator) -> Pool:
    """Return a pool of the one candidate that scores best after a few rounds of local search."""
    gate, scores = gate.without(pool), judge.scores(pool)
    for _ in range(_ROUNDS):
        pool = pool.take(np.argsort(-scores, kind="stable")[:_KEPT])
        young = gate.admit(children(gate.problem.space, pool.candidates[:_PARENTS], _CHILDREN, rng))
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
