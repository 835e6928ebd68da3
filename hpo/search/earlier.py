"""A finished study of another model, device or space, as plain values that a new search may learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpo.metric import METRICS
from hpo.pareto import Frame
from hpo.problem import Problem, dense_trial, frame
from hpo.space import Choice, Float, Int, SearchSpace
from hpo.trial import Objective, Trial, TrialState

Array = NDArray[np.float64]

FEWEST = 8
"""Completed trials of an earlier study below which nothing is learnt from it."""


class Unusable(Exception):
    """An earlier study that nothing can be learnt from; the message says why."""


@dataclass(frozen=True)
class EarlierStudy:
    """What a new search is told of an earlier study.

    Raises:
        Unusable: its dense model was not measured, or fewer than `FEWEST` of its trials were completed.
    """

    name: str
    space: SearchSpace
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    """In whatever state; only completed ones are learnt from."""

    def __post_init__(self) -> None:
        if dense_trial(self.trials) is None:
            raise Unusable("its dense model has no completed trial, and all else is compared with that")
        if len(self.completed) < FEWEST:
            raise Unusable(f"it has {len(self.completed)} completed trials, and at least {FEWEST} are needed")

    @cached_property
    def completed(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state is TrialState.COMPLETED)

    @cached_property
    def dense(self) -> Trial:
        found = dense_trial(self.trials)
        assert found is not None, "checked when made"
        return found

    @cached_property
    def box(self) -> Frame | None:
        return frame(self.objectives, self.trials)

    def having(self, metric: str) -> list[Trial]:
        """Return the completed trials with a value of a metric; none where the dense model has none."""
        if self.dense.value(metric) is None:
            return []
        return [trial for trial in self.completed if trial.value(metric) is not None]

    def relative(self, metric: str, trials: Sequence[Trial]) -> Array:
        """Return what trials come to against the dense model, shape (N,); trials as from `having`.

        Losses in units of the dense model's (its absolute value), so that studies of two models or devices
        compare; as they are where that is 0 (a divergence from the dense model).
        """
        objective = Objective(metric=metric)
        losses = [objective.loss(trial.value(metric) or 0.0) for trial in trials]
        return np.array(losses) / self._unit(metric)

    def reference(self, metric: str) -> float:
        """Return where its comparison box ends, in the unit of `relative`; the worst trial without a box."""
        names = [objective.metric for objective in self.objectives]
        if self.box is None or metric not in names:
            return float(self.relative(metric, self.having(metric)).max())
        return self.box.reference[names.index(metric)] / self._unit(metric)

    def _unit(self, metric: str) -> float:
        return abs(self.dense.value(metric) or 0.0) or 1.0

    def measured(self, problem: Problem) -> tuple[str, ...]:
        """Return the objectives of a problem which a search must learn and this study has values of."""
        names = [o.metric for o in problem.objectives if o.metric not in problem.exact]
        return tuple(name for name in names if len(self.having(name)) >= FEWEST)

    def parameters(self, space: SearchSpace) -> tuple[str, ...]:
        """Return the parameters of a space whose values mean something to this study too."""
        theirs = self.space.parameters
        return tuple(n for n, ours in space.parameters.items() if n in theirs and _meet(ours, theirs[n]))

    def check(self, problem: Problem) -> None:
        """Refuse a study that has nothing to say about a problem.

        Raises:
            Unusable: no measured objective or no parameter in common.
        """
        if not self.measured(problem):
            wanted = [o.metric for o in problem.objectives if o.metric not in problem.exact]
            has = [name for name in METRICS if len(self.having(name)) >= FEWEST]
            raise Unusable(
                f"it has measured none of {', '.join(wanted) or 'nothing'}; "
                f"it knows {', '.join(has) or 'nothing'}"
            )
        if not self.parameters(problem.space):
            theirs = ", ".join(self.space.parameters)
            raise Unusable(f"no parameter of the space is one of its own; they are {theirs}")


def _meet(ours: Float | Int | Choice, theirs: Float | Int | Choice) -> bool:
    """Whether two parameters of one name share any value."""
    return bool(set(_sides(ours)) & set(_sides(theirs))) if _listed(ours, theirs) else _overlap(ours, theirs)


def _listed(*parameters: Float | Int | Choice) -> bool:
    return all(isinstance(parameter, Choice) for parameter in parameters)


def _sides(parameter: Float | Int | Choice) -> Sequence[object]:
    """Return the choices, or both ends of a range."""
    if isinstance(parameter, Choice):
        return parameter.choices
    return (parameter.low, parameter.high)


def _overlap(ours: Float | Int | Choice, theirs: Float | Int | Choice) -> bool:
    a = [float(v) for v in _sides(ours) if isinstance(v, int | float) and not isinstance(v, bool)]
    b = [float(v) for v in _sides(theirs) if isinstance(v, int | float) and not isinstance(v, bool)]
    return bool(a and b) and max(min(a), min(b)) <= min(max(a), max(b))
