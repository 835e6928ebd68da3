"""Optuna's Gaussian processes, asked about candidates that may be proposed.

Dimension letters: N trials or candidates, M objectives.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import GPSampler

from hpo.pareto import Frame, nondominated
from hpo.problem import Problem
from hpo.search.flat import Flat
from hpo.search.generate import children
from hpo.search.optuna_replay import Replay
from hpo.search.outcomes import NoModel, Scale, box
from hpo.search.pool import Gate, Pool, fresh
from hpo.search.process import reproducible
from hpo.search.sobol import spread
from hpo.search.surrogate import Surrogate
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]

_log = logging.getLogger(__name__)

_POOL = 256
"""Quasi-random candidates looked at for each one asked for, and as many variations of the front."""
_ROUNDS = 3
"""Of local search: the best are varied, and judged together with their variations."""
_KEPT, _CHILDREN = 8, 128
_TOGETHER = 3
"""Objectives up to which a hypervolume is taken. Of four it took 10 to 20 times as long as a
scalarisation at 60 trials, and Optuna warns of more."""
_HOPELESS = 1e-12
"""A chance below which none is told from another."""


def propose(
    problem: Problem, history: Sequence[Trial], start: Sequence[Candidate], count: int, seed: int
) -> list[Candidate]:
    """Return `start` and as many candidates after it as make `count`, or all there are."""
    rng = np.random.default_rng([seed, len(history)])
    chosen, gate = Pool.of(problem, start), Gate.of(problem, history)
    front = _front(problem, history)
    if not front:
        return spread(problem, history, count, seed)
    flat = Flat(problem.space)
    with reproducible(seed):
        survival = _survival(problem, history, fresh(gate, _POOL, int(rng.integers(2**31))))
        sampler = _PoolGp(flat, gate, front, survival, rng)
        pending = [flat.filled(candidate) for candidate in start]
        weights = rng.dirichlet(np.ones(len(problem.objectives)))
        learnt = partial(told, frame=box(problem, history), weights=weights)
        with Replay(flat.problem(problem), flat.history(history), pending, sampler, learnt) as replay:
            while len(chosen) < count and len(found := sampler.next(replay, chosen)):
                chosen = chosen.joined(found)
    return list(chosen.candidates)


def told(losses_NM: Array, frame: Frame, weights: Array) -> Array:
    """Return what the processes learn, (N, K); K is M up to three objectives, and 1 beyond.

    Each loss on a scale that suits a process (`Scale`: its order stays, and so does the front); of more,
    their augmented Chebyshev scalarisation with `weights` (M,), counted from the best of each (Knowles
    2006). Rows that are not complete become NaN; at least one must be complete.
    """
    complete = np.isfinite(losses_NM).all(axis=1)
    known = losses_NM[complete]
    scaled = np.column_stack(
        [
            Scale.of(column, edge).forward(column)
            for column, edge in zip(known.T, frame.reference, strict=True)
        ]
    )
    if len(weights) > _TOGETHER:
        weighted = weights * (scaled - scaled.min(axis=0))
        scaled = (weighted.max(axis=1) + 0.05 * weighted.sum(axis=1))[:, None]
    found = np.full((len(losses_NM), scaled.shape[1]), np.nan)
    found[complete] = scaled
    return found


def _front(problem: Problem, history: Sequence[Trial]) -> list[Candidate]:
    """Return the candidates of the space that no other dominates."""
    done = [t for t in history if t.state is TrialState.COMPLETED and problem.space.contains(t.candidate)]
    best = nondominated(problem.losses(done))
    return [trial.candidate for trial, is_best in zip(done, best, strict=True) if is_best]


def _survival(problem: Problem, history: Sequence[Trial], pool: Pool) -> Surrogate | None:
    """Return a model of where trials fail, or None: that of a problem without objectives knows no more."""
    if not len(pool):
        return None
    bare = replace(problem, objectives=(), exact=())
    try:
        return Surrogate.of(bare, history, Frame((), ()))
    except NoModel as reason:
        _log.warning("where trials fail is not learnt: %s", reason)
        return None


class _PoolGp(GPSampler):  # type: ignore[misc]  # Optuna's types are not followed
    """Optuna's sampler, which here chooses from candidates that may be proposed.

    Overrides `_optimize_acqf`: private, but the place that Optuna names for another search of the
    acquisition, without a promise that it stays. Were it not called, candidates would be quasi-random.
    """

    def __init__(
        self,
        flat: Flat,
        gate: Gate,
        front: Sequence[Candidate],
        survival: Surrogate | None,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(seed=int(rng.integers(2**31)), n_startup_trials=1, warn_independent_sampling=False)
        self._flat = flat
        self._gate = gate
        self._front = front
        self._survival = survival
        self._random = rng
        self._found = gate.admit(())

    def next(self, replay: Replay, chosen: Pool) -> Pool:
        """Return a pool of one new candidate, or of none if the space holds no more."""
        self._gate = self._gate.without(chosen)
        self._found = self._pool()
        if len(self._found):
            replay.propose()
        return self._found.first(1)

    def _optimize_acqf(self, acqf: Any, best_params: Array | None) -> Array:
        pool = self._found
        scores = self._scores(acqf, pool)
        for _ in range(_ROUNDS):
            pool = pool.take(np.argsort(-scores, kind="stable")[:_KEPT])
            varied = children(self._flat.space, pool.candidates, _CHILDREN, self._random)
            pool = pool.joined(self._gate.without(pool).admit(varied))
            scores = self._scores(acqf, pool)
        self._found = pool.take([int(np.argmax(scores))])
        row: Array = self._flat.rows(self._found.candidates)[0]
        return row

    def _pool(self) -> Pool:
        """Return candidates from everywhere and near the front."""
        pool = fresh(self._gate, _POOL, int(self._random.integers(2**31))).first(_POOL)
        varied = children(self._flat.space, self._front, _POOL, self._random)
        return pool.joined(self._gate.without(pool).admit(varied))

    def _scores(self, acqf: Any, pool: Pool) -> Array:
        """Return the logarithm of the acquisition times the chance not to fail, shape (N,)."""
        scores: Array = acqf.eval_acqf_no_grad(self._flat.rows(pool.candidates))
        chances = self._survival.chances(pool) if self._survival else np.ones(len(pool))
        judged: Array = scores + np.log(np.maximum(chances, _HOPELESS))
        judged[np.isnan(judged)] = -np.inf
        return judged
