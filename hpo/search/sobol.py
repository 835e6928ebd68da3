"""Quasi-random search: the baseline, and the start of every model-based search."""

from collections import Counter
from collections.abc import Sequence

from hpo.problem import Problem
from hpo.search.generate import branch, branching
from hpo.search.pool import Gate, fresh
from hpo.space import Candidate
from hpo.trial import Trial

_AHEAD = 32
"""How many points are looked at to find one of the branch whose turn it is."""


class SobolSampler:
    """Scrambled Sobol points, each branch of a conditional space in turn."""

    summary = "quasi-random points; learns nothing: a baseline, or for as many workers as trials"

    def __init__(self, initial: int = 8) -> None:
        self.initial = initial
        """Taken for the sake of the protocol; every point is quasi-random here."""

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        return spread(problem, history, count, seed)


def spread(problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
    """Return the next `count` points of the Sobol sequence that `seed` names, evenly over the branches.

    The sequence starts anew at every call and what `history` holds is passed over; so with one seed
    throughout a study its points are those of one sequence, and a restart changes nothing. Of the
    points at hand the first one of the branch least visited so far is next: no branch is left to chance.
    """
    if count == 0:
        return []
    pool = fresh(Gate.of(problem, history), count + _AHEAD, seed)
    parents = branching(problem.space)
    branches = [branch(parents, candidate) for candidate in pool.candidates]
    visits = Counter(branch(parents, trial.candidate) for trial in history)
    left = list(range(len(pool)))
    chosen: list[int] = []
    while left and len(chosen) < count:
        best = min(left, key=lambda i: (visits[branches[i]], i))
        visits[branches[best]] += 1
        left.remove(best)
        chosen.append(best)
    return [pool.candidates[i] for i in chosen]
