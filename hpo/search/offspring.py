"""The children of a ranked population: tournament, crossover, mutation.

All of it on the unit cube of `SearchSpace.from_unit`, so rounding, steps, log scales and conditions are
the space's own business. Dimension letters: D parameters.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover

from hpo.search.generate import branching
from hpo.space import Candidate, Choice, SearchSpace

Array = NDArray[np.float64]

_ETA = 5.0
"""How near children are to their parents. Deb et al. (2002) take 20, for ten thousands of trials; within
200, 5 found larger fronts of ZDT1 and of a compression with four objectives, and as large ones with two."""
_CROSSED = 0.9
"""Share of children with two parents."""
_UNIT = np.array([0.0, 1.0])
_STUDY: Any = None
"""Optuna's operators take a study; these two do not look at it once they are told their eta."""


def offspring(
    space: SearchSpace, parents: Sequence[Candidate], count: int, rng: np.random.Generator
) -> list[Candidate]:
    """Return `count` children of `parents`, which lie in the space and are ranked, the best first.

    Each parent is the better of two drawn at random. Numbers are crossed by simulated binary crossover
    (Deb and Agrawal 1995) and mutated by a polynomial step (Deb and Goyal 1996), or drawn anew where
    that is too short to reach another value; a choice comes from either parent and is drawn anew to
    mutate. What only one parent has is its alone, so a child that takes one parent's branch takes the
    values below it along; what a mutated choice switches on is drawn at random. One active parameter in
    each child mutates on average; those on which others depend less often, one in all parameters of
    the space, for so much is lost with a branch. Without parents, nothing comes.
    """
    if not parents:
        return []
    units = np.array([space.to_unit(parent, inactive=np.nan) for parent in parents])
    with _operators() as (crossover, mutation):
        # Optuna's operators draw from numpy's older generator.
        legacy = np.random.RandomState(int(rng.integers(2**31)))
        children = []
        for _ in range(count):
            drawn = legacy.randint(len(parents), size=(2, 2)).min(axis=1)
            child = _crossed(space, units[drawn], crossover, legacy)
            children.append(space.from_unit(_mutated(space, child, mutation, legacy).tolist()))
    return children


@contextmanager
def _operators() -> Iterator[tuple[SBXCrossover, PolynomialMutation]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        operators = SBXCrossover(eta=_ETA), PolynomialMutation(eta=_ETA)
    yield operators


def _crossed(space: SearchSpace, pair: Array, crossover: SBXCrossover, rng: np.random.RandomState) -> Array:
    """Return the child of two rows (2, D), NaN where a parent has no value, before mutation."""
    first = pair[0]
    known = np.where(np.isnan(pair), pair[::-1], pair)
    known = np.where(np.isnan(known), rng.random_sample(len(first)), known)
    child: Array = known[0]
    if rng.random_sample() < _CROSSED:
        numbers = crossover.crossover(known, rng, _STUDY, np.tile(_UNIT, (len(first), 1)))
        either = np.where(rng.random_sample(len(first)) < 0.5, known[0], known[1])
        choices = np.array([isinstance(p, Choice) for p in space.parameters.values()])
        child = np.where(choices, either, numbers)
    return child


def _mutated(
    space: SearchSpace, child: Array, mutation: PolynomialMutation, rng: np.random.RandomState
) -> Array:
    """Return the child (D,) with some of its active parameters changed."""
    active, parents = space.active(space.from_unit(child.tolist()).values), branching(space)
    mutated = child.copy()
    for i, (name, parameter) in enumerate(space.parameters.items()):
        rate = 1 / (len(space) if name in parents else len(active))
        if name not in active or rng.random_sample() >= rate:
            continue
        if not isinstance(parameter, Choice):
            mutated[i] = mutation.mutation(child[i], rng, _STUDY, _UNIT)
        if isinstance(parameter, Choice) or parameter.from_unit(mutated[i]) == parameter.from_unit(child[i]):
            mutated[i] = rng.random_sample()
    return mutated
