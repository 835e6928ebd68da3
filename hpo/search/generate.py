"""Where candidates come from: quasi-random points, every one there is, children of good ones.

All of these work on the unit cube of `SearchSpace.from_unit`, so rounding, steps, log scales and
conditions are the space's own business.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value

Array = NDArray[np.float64]

_STEPS = np.array([0.02, 0.06, 0.2])
"""Spreads of a mutated number, in shares of its range: to polish, to move, to jump."""


def sobol(space: SearchSpace, count: int, seed: int, skip: int = 0) -> list[Candidate]:
    """Return points `skip` to `skip + count` of a scrambled Sobol sequence (Owen 1998)."""
    import torch  # which takes seconds

    engine = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=seed % 2**63)
    if skip:
        engine.fast_forward(skip)
    return [space.from_unit(unit) for unit in engine.draw(count, dtype=torch.float64).tolist()]


def everything(space: SearchSpace) -> Iterator[Candidate]:
    """Yield every candidate of a countable space once; of two parameters, the later one changes first."""
    return _completions(tuple(space.parameters.items()), {})


def _completions(
    left: Sequence[tuple[str, Float | Int | Choice]], chosen: Mapping[str, Value]
) -> Iterator[Candidate]:
    """Yield the candidates that go on from `chosen`; parents stand before what depends on them."""
    if not left:
        yield Candidate.of(chosen)
        return
    (name, parameter), *rest = left
    if all(parent in chosen and chosen[parent] in values for parent, values in parameter.when.items()):
        for value in _values(parameter):
            yield from _completions(rest, {**chosen, name: value})
    else:
        yield from _completions(rest, chosen)


def _values(parameter: Float | Int | Choice) -> Sequence[Value]:
    if isinstance(parameter, Choice):
        return parameter.choices
    if isinstance(parameter, Int):
        return range(parameter.low, parameter.high + 1, parameter.step)
    if parameter.count is None:
        raise ValueError("a continuous parameter has no list of values")
    return [parameter.from_unit((i + 0.5) / parameter.count) for i in range(parameter.count)]


def branching(space: SearchSpace) -> tuple[str, ...]:
    """Return the parameters on which others depend."""
    parents = {parent for parameter in space.parameters.values() for parent in parameter.when}
    return tuple(name for name in space.parameters if name in parents)


def branch(parents: Sequence[str], candidate: Candidate) -> tuple[Value | None, ...]:
    """Return the values of the branching parameters: which sub-space a candidate lies in."""
    return tuple(candidate.values.get(parent) for parent in parents)


def children(
    space: SearchSpace, parents: Sequence[Candidate], count: int, rng: np.random.Generator
) -> list[Candidate]:
    """Return `count` variations of `parents`: a few values changed, every third crossed with another.

    A number moves by a normal step (its size drawn anew for each child) and stops at its ends, so that
    ends are reached; a choice becomes another one. What a changed choice switches on is drawn anew.
    `parents` must lie in the space; without any, nothing comes.
    """
    if not parents:
        return []
    shape = (count, len(space))
    units = np.array([space.to_unit(parent, inactive=np.nan) for parent in parents])
    base, other = (units[rng.integers(len(parents), size=count)] for _ in range(2))
    crossed = (rng.random((count, 1)) < 1 / 3) & (rng.random(shape) < 0.5) & ~np.isnan(other)
    base = np.where(crossed, other, base)
    active = ~np.isnan(base)
    changed = rng.random(shape) < 1 / active.sum(axis=1, keepdims=True)
    changed[np.arange(count), np.where(active, rng.random(shape), -1.0).argmax(axis=1)] = True
    base = np.where(active, base, rng.random(shape))
    moved = np.clip(base + rng.choice(_STEPS, size=(count, 1)) * rng.normal(size=shape), 0.0, 1.0)
    choices = np.array([p.count if isinstance(p, Choice) else 0 for p in space.parameters.values()])
    turned = (base + rng.integers(1, np.maximum(choices, 2), size=shape) / np.maximum(choices, 1)) % 1.0
    varied = np.where(choices > 0, turned, moved)
    return [space.from_unit(unit) for unit in np.where(changed, varied, base).tolist()]
