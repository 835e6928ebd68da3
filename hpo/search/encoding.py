"""Candidates as rows of numbers, for models that need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value

Array = NDArray[np.float64]
Condition = frozenset[tuple[str, tuple[Value, ...]]]

_BEYOND = 1.0
"""How far outside [0, 1] a number from outside its range may lie: no anchor shall stretch all distances."""


@dataclass(frozen=True)
class Encoding:
    """How the candidates of a space become rows: N candidates, D columns.

    A number is one column, 0 at its low and 1 at its high end, on a log scale where it has one. A choice
    is one column a value (one-hot). What is not set lies in the middle: 0.5 for a number, the mean of
    the one-hot rows for a choice. Each distinct condition adds a column, 1 where it holds, so that "not
    set" and "set to the middle" differ. A parameter with one value says nothing and has no column.

    Any candidate can be encoded, one from outside the space too (the dense model is the empty
    candidate): as far as its values are known here, and unset for the rest.
    """

    space: SearchSpace

    @cached_property
    def conditions(self) -> Mapping[Condition, tuple[str, ...]]:
        """Each distinct condition with the parameters that it switches on."""
        found: dict[Condition, tuple[str, ...]] = {}
        for name, parameter in self.space.parameters.items():
            if parameter.when:
                condition = frozenset(parameter.when.items())
                found[condition] = (*found.get(condition, ()), name)
        return found

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """What each of the D columns says."""
        names: list[str] = []
        for name, parameter in self._varied.items():
            if isinstance(parameter, Choice):
                names += [f"{name}={choice}" for choice in parameter.choices]
            else:
                names.append(name)
        return (*names, *("|".join(children) + " set" for children in self.conditions.values()))

    @cached_property
    def _varied(self) -> Mapping[str, Float | Int | Choice]:
        return {name: p for name, p in self.space.parameters.items() if p.count != 1}

    @cached_property
    def _one_hot(self) -> Mapping[str, Mapping[tuple[type, Value | None], list[float]]]:
        """The columns of every value of every choice; 1 and True are two values."""
        return {
            name: {(type(c), c): [float(c == other) for other in p.choices] for c in p.choices}
            for name, p in self._varied.items()
            if isinstance(p, Choice)
        }

    def encode(self, candidates: Sequence[Candidate]) -> Array:
        """Return the rows of `candidates`, shape (N, D)."""
        rows = [self._row(candidate.values) for candidate in candidates]
        return np.array(rows, dtype=float).reshape(len(candidates), len(self.columns))

    def _row(self, values: Mapping[str, Value]) -> list[float]:
        row: list[float] = []
        for name, parameter in self._varied.items():
            value = values.get(name)
            if isinstance(parameter, Choice):
                known = self._one_hot[name]
                row += known.get((type(value), value)) or [1 / len(known)] * len(known)
            else:
                row.append(_scaled(parameter, value))
        for children in self.conditions.values():
            row.append(float(any(child in values for child in children)))
        return row


def _scaled(parameter: Float | Int, value: Value | None) -> float:
    """Return a number's place in its range; a little outside for one outside, 0.5 for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or (parameter.log and value <= 0):
        return 0.5
    return min(max(parameter.to_unit(value), -_BEYOND), 1 + _BEYOND)
