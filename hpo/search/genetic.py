"""A genetic algorithm whose generations are read off the history.

Optuna has an NSGA-II, but it cannot be asked from a history: it keeps each trial's generation and each
generation's parents in private attributes of its storage, counts a generation by what was complete when
a trial was asked for, and draws every conditional parameter at random. Its operators are public, and so
is moocore's sorting; what remains is here.

Dimension letters: N individuals, M objectives.
"""

from collections.abc import Sequence
from itertools import groupby

import moocore
import numpy as np
from numpy.typing import NDArray

from hpo.problem import Problem
from hpo.search.history import excess, start_left
from hpo.search.pool import Gate, Pool, fresh
from hpo.search.sobol import spread
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]

_BROOD = 64
"""Children bred together; the first of them that may be proposed are."""
_BROODS = 8
"""Broods in a row without enough such children before quasi-random candidates make up for them."""


class Nsga2Sampler:
    """NSGA-II (Deb, Pratap, Agarwal and Meyarivan 2002): nondominated sorting and crowding.

    Every `population` trials are a generation, by their place in the history; the first one is the
    quasi-random start, to which anchors within the space belong too. Parents are the best `population`
    of the generation before and its own parents, so a trial that ends late can still become one.

    Broken limits count by constrained domination: whoever keeps them comes first, then whoever breaks
    them least. A trial without all its values (failed, stopped) would come last; no value is made up for
    it, it is just no parent, and while there is no other one candidates are quasi-random.
    """

    summary = "NSGA-II, a genetic algorithm: no model to fit; for hundreds of trials on many workers"

    def __init__(self, initial: int = 8) -> None:
        self.initial = initial

    @property
    def population(self) -> int:
        """How many trials are a generation: as many as there are at the start, and at least 4."""
        return max(self.initial, 4)

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        chosen = Pool.of(problem, spread(problem, history, start_left(history, self.initial, count), seed))
        rng = np.random.default_rng([seed, len(history)])
        gate = Gate.of(problem, history)
        asked = sum(map(_is_asked, history))
        while len(chosen) < count:
            generation, place = divmod(asked + len(chosen), self.population)
            wanted = min(self.population - place, count - len(chosen))
            parents = survivors(problem, history, generation, self.population)
            found = _bred(parents, gate.without(chosen), wanted, rng)
            chosen = chosen.joined(found)
            if len(found) < wanted:
                break
        return list(chosen.candidates)


def survivors(
    problem: Problem, history: Sequence[Trial], generation: int, population: int
) -> list[Candidate]:
    """Return the parents of a generation, the fittest first: what is left of all those before it."""
    bounds = problem.bounds(history)
    losses = problem.losses(history)
    born, asked = [], 0
    for trial in history:
        born.append(asked // population if _is_asked(trial) else 0)
        asked += _is_asked(trial)
    measured = [
        i
        for i, trial in enumerate(history)
        if trial.state is TrialState.COMPLETED
        and np.isfinite(losses[i]).all()
        and problem.space.contains(trial.candidate)
        and born[i] < generation
    ]
    alive: list[int] = []
    for _, children in groupby(sorted(measured, key=born.__getitem__), key=born.__getitem__):
        alive += children
        kept = fittest(losses[alive], excess(losses[alive], bounds), population)
        alive = [alive[i] for i in kept]
    return [history[i].candidate for i in alive]


def _is_asked(trial: Trial) -> bool:
    return not trial.origin.startswith("anchor")


def fittest(losses_NM: Array, excess_NM: Array, count: int) -> NDArray[np.intp]:
    """Return the rows of the best `count` individuals, the best first.

    By rank under constrained domination, then the lonelier one in its rank, then the earlier one.

    Args:
        losses_NM: finite; smaller is better.
        excess_NM: by how much a loss exceeds its limit; at most 0 where it does not.
        count: how many may stay.
    """
    ranks = constrained_ranks(losses_NM, np.maximum(excess_NM, 0.0).sum(axis=1))
    lonely = np.zeros(len(losses_NM))
    for rank in np.unique(ranks):
        lonely[ranks == rank] = crowding_distances(losses_NM[ranks == rank])
    order: NDArray[np.intp] = np.lexsort((-lonely, ranks))
    return order[:count]


def constrained_ranks(losses_NM: Array, violation_N: Array) -> NDArray[np.int64]:
    """Return ranks from 0: nondominated fronts of the feasible, then the others by their violation."""
    feasible = violation_N <= 0
    ranks = np.zeros(len(losses_NM), dtype=np.int64)
    if feasible.any():
        ranks[feasible] = moocore.pareto_rank(losses_NM[feasible])
    behind = int(ranks.max(initial=-1, where=feasible)) + 1
    _, places = np.unique(violation_N[~feasible], return_inverse=True)
    ranks[~feasible] = behind + places
    return ranks


def crowding_distances(losses_NM: Array) -> Array:
    """Return the distance between the neighbours of each individual of one front, shape (N,).

    Summed over objectives, each in shares of its range; inf at both ends of an objective that varies.
    """
    distances = np.zeros(len(losses_NM))
    for column in losses_NM.T:
        order = np.argsort(column, kind="stable")
        values = column[order]
        if values[-1] > values[0]:
            gaps = np.full(len(values), np.inf)
            gaps[1:-1] = (values[2:] - values[:-2]) / (values[-1] - values[0])
            distances[order] += gaps
    return distances


def _bred(parents: Sequence[Candidate], gate: Gate, count: int, rng: np.random.Generator) -> Pool:
    """Return `count` new candidates, children as far as possible; fewer if the space holds no more."""
    found = gate.admit(())
    for _ in range(_BROODS if parents else 0):
        from hpo.search.offspring import offspring  # Optuna takes a second to import

        brood = offspring(gate.problem.space, parents, max(_BROOD, count), rng)
        found = found.joined(gate.without(found).admit(brood))
        if len(found) >= count:
            return found.first(count)
    others = fresh(gate.without(found), count - len(found), int(rng.integers(2**31)))
    return found.joined(others).first(count)
