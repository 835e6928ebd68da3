"""An Optuna study in memory, for the length of one question.

The record of a study is ours: Optuna's own storage commits every parameter by itself and loses trials
to locks. So an empty study is filled with the history each time, and thrown away.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Self

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as State

from hpo.problem import Problem
from hpo.search.history import blames_candidate, excess
from hpo.space import Candidate, Choice, Float, Int, Value
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]


@dataclass
class Replay:
    """What Optuna would propose after a history. Use it inside `with`, which keeps Optuna's log quiet."""

    problem: Problem
    history: Sequence[Trial]
    pending: Sequence[Candidate]
    """Under way besides those of the history."""
    sampler: BaseSampler
    """One of Optuna's that has seen no other study."""
    told: Callable[[Array], Array] = field(default=lambda losses: losses)
    """What Optuna minimises, (N, K), of losses (N, M), NaN where there are none: the losses, if not said."""
    study: optuna.Study = field(init=False)
    _last: optuna.Trial = field(init=False)
    _verbosity: int = field(init=False)

    def __enter__(self) -> Self:
        self._verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        losses = self.problem.losses(self.history)
        values = self.told(losses)
        directions = ["minimize"] * values.shape[1]
        self.study = optuna.create_study(directions=directions, sampler=self.sampler)
        self.study.add_trials(self._replayed(losses, values))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        optuna.logging.set_verbosity(self._verbosity)

    def propose(self) -> Candidate:
        """Return Optuna's next candidate; it counts as under way from now on."""
        self._last = self.study.ask()
        space = self.problem.space
        values: dict[str, Value] = {}
        for name, parameter in space.parameters.items():  # parents first
            if name in space.active(values):
                values[name] = _suggested(self._last, name, parameter)
        return Candidate.of(values)

    def reject(self, share: float) -> None:
        """Tell Optuna that its last proposal breaks an exact limit by this share of it (inf: refused)."""
        self._last.set_constraint("exact", share)
        self.study.tell(self._last, state=State.PRUNED)

    @cached_property
    def _distributions(self) -> Mapping[str, BaseDistribution]:
        return {name: _distribution(p) for name, p in self.problem.space.parameters.items()}

    def _replayed(self, losses_NM: Array, values_NK: Array) -> list[FrozenTrial]:
        """Return Optuna's form of every trial that it can learn from."""
        bounds = self.problem.bounds(self.history)
        found = [self._frozen(candidate, State.RUNNING) for candidate in self.pending]
        for trial, losses, values in zip(self.history, losses_NM, values_NK, strict=True):
            # An anchor outside the space fits none of its distributions.
            if not self.problem.space.contains(trial.candidate):
                continue
            if not trial.state.is_final:
                found.append(self._frozen(trial.candidate, State.RUNNING))
            elif trial.state is not TrialState.FAILED:
                found.append(self._measured(trial, losses, values, bounds))
            elif blames_candidate(trial):
                found.append(self._frozen(trial.candidate, State.PRUNED, constraints={"failed": np.inf}))
        return found

    def _measured(self, trial: Trial, losses: Array, values: Array, bounds: Array) -> FrozenTrial:
        """Return a completed trial, or one with a value missing as pruned: bad, without a number."""
        over = excess(losses, bounds)
        constraints = {str(i): float(over[i]) for i in np.flatnonzero(np.isfinite(over))}
        if trial.state is TrialState.COMPLETED and np.isfinite(losses).all():
            return self._frozen(trial.candidate, State.COMPLETE, values.tolist(), constraints)
        return self._frozen(trial.candidate, State.PRUNED, constraints=constraints)

    def _frozen(
        self,
        candidate: Candidate,
        state: State,
        values: Sequence[float] | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> FrozenTrial:
        parameters = self.problem.space.parameters
        return create_trial(
            state=state,
            values=values,
            params={name: _told(parameters[name], value) for name, value in candidate.items},
            distributions={name: self._distributions[name] for name, _ in candidate.items},
            constraints=dict(constraints or {}),
        )


def tpe(seed: int) -> TPESampler:
    """Return Optuna's TPE for conditional spaces, without a start of its own."""
    with warnings.catch_warnings():
        # Grouping has been "experimental" since 2021; it is Optuna's one way to conditional spaces.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True)


def _distribution(parameter: Float | Int | Choice) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(range(parameter.count))
    top = parameter.from_unit(1.0)  # the last value that a whole number of steps reaches
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, int(top), log=parameter.log, step=parameter.step)
    return FloatDistribution(parameter.low, float(top), log=parameter.log, step=parameter.step)


def _told(parameter: Float | Int | Choice, value: Value) -> Value:
    """Return a value as Optuna is told it: a choice by its place."""
    return parameter.choices.index(value) if isinstance(parameter, Choice) else value


def _suggested(trial: optuna.Trial, name: str, parameter: Float | Int | Choice) -> Value:
    if isinstance(parameter, Choice):
        place: int = trial.suggest_categorical(name, range(parameter.count))
        return parameter.choices[place]
    top = parameter.from_unit(1.0)
    if isinstance(parameter, Int):
        return int(trial.suggest_int(name, parameter.low, int(top), step=parameter.step, log=parameter.log))
    value = trial.suggest_float(name, parameter.low, float(top), step=parameter.step, log=parameter.log)
    return parameter.from_unit(parameter.to_unit(value))  # with the digits that the space writes
