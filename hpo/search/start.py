"""Where a search begins: by what plans let one guess, and spread out."""

from collections.abc import Sequence

import numpy as np

from hpo.pareto import nondominated
from hpo.problem import Problem
from hpo.search.exact_range import ExactRange
from hpo.search.pool import Gate, fresh, previewed
from hpo.search.sobol import spread
from hpo.space import Candidate
from hpo.trial import Trial

_POOL = 512
"""Quasi-random candidates among which the promising ones are looked for."""


def opening(
    problem: Problem, history: Sequence[Trial], count: int, seed: int, turn: int = 2
) -> list[Candidate]:
    """Return `count` candidates to begin a search with, fewer only if there are no more.

    One in each `turn` is promising, the rest are quasi-random. A promising one is on the front of what is
    guessed and what is exact and as far as can be, in the exact objectives, from all that have been tried.
    Where a problem has no guesses or no exact objectives, all are quasi-random.
    """
    chosen: list[Candidate] = []
    pending = list(history)
    for _ in range(count):
        asked = len(pending)
        found = _promising(problem, pending, seed) if asked % turn == turn - 1 else []
        found = found or spread(problem, pending, 1, seed)
        if not found:
            break
        chosen += found
        pending.append(Trial(asked, found[0], "start", problem.preview(found).plans[0]))
    return chosen


def _promising(problem: Problem, history: Sequence[Trial], seed: int) -> list[Candidate]:
    pool = fresh(Gate.of(problem, history), _POOL, seed)
    if not len(pool) or not pool.guesses.shape[1] or not pool.exact.shape[1]:
        return []
    pool = pool.take(np.flatnonzero(nondominated(np.hstack([pool.guesses, pool.exact]))))
    tried = previewed(problem, history)[1]
    if not len(tried):
        return [pool.candidates[0]]
    known = ExactRange.of(np.vstack([pool.exact, tried.exact]))
    apart = known.shares(pool.exact)[:, None] - known.shares(tried.exact)
    nearest = np.linalg.norm(apart, axis=2).min(axis=1)
    return [pool.candidates[int(np.argmax(nearest))]]
