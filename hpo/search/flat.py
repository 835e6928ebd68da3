"""A conditional space as a plain one, for models that want every parameter set.

Dimension letters: N candidates, D parameters that vary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpo.problem import Problem
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Trial

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Flat:
    """A space without its conditions: what a candidate does not set stands at the middle of its range."""

    space: SearchSpace

    @cached_property
    def _middle(self) -> Mapping[str, Value]:
        return {name: parameter.from_unit(0.5) for name, parameter in self.space.parameters.items()}

    def problem(self, problem: Problem) -> Problem:
        """Return the problem on the flat space; only its objectives and its space are of use."""
        every = {n: p.model_copy(update={"when": {}}) for n, p in self.space.parameters.items()}
        return replace(problem, space=SearchSpace(every))

    def filled(self, candidate: Candidate) -> Candidate:
        """Return a candidate of the space with every parameter set."""
        return Candidate.of({**self._middle, **candidate.values})

    def history(self, history: Sequence[Trial]) -> list[Trial]:
        """Return the trials of the space, filled; others (the dense model) as they are."""
        return [
            replace(t, candidate=self.filled(t.candidate)) if self.space.contains(t.candidate) else t
            for t in history
        ]

    def rows(self, candidates: Sequence[Candidate]) -> Array:
        """Return candidates as Optuna's processes see them, (N, D).

        Columns by name, without parameters of one value; numbers in [0, 1], choices by their place.
        """
        found = np.empty((len(candidates), len(self._columns)))
        for i, candidate in enumerate(candidates):
            values = self.filled(candidate).values
            for j, name in enumerate(self._columns):
                found[i, j] = _place(self.space.parameters[name], values[name])
        return found

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, p in self.space.parameters.items() if p.count != 1))


def _place(parameter: Float | Int | Choice, value: Value) -> float:
    return parameter.choices.index(value) if isinstance(parameter, Choice) else parameter.to_unit(value)
