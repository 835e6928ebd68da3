"""What Optuna's samplers have in common: a study in memory, asked and told."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hpo.problem import Problem
from hpo.search.history import excess
from hpo.space import Candidate, Choice, Float, Int, Value
from hpo.trial import Trial, TrialState

Parameter = Float | Int | Choice


class OptunaPeer(ABC):
    """A search by one of Optuna's samplers, the space defined by running so that conditions hold.

    Limits are constraints, told with the values as shares of the limit, at most 0 where it is kept.
    A failed or refused candidate is a failed trial, which Optuna's samplers take no notice of. An
    anchor from outside the space fits none of Optuna's distributions and cannot be told.
    """

    def __init__(self, problem: Problem, seed: int, initial: int) -> None:
        self.seed = seed
        self.initial = initial
        self._problem = problem
        self._anchors: list[Trial] = []
        self._told: list[Trial] = []
        self._asked: optuna.Trial | None = None

    @abstractmethod
    def sampler(self, startup: int) -> optuna.samplers.BaseSampler:
        """Return the sampler; it may trust its model after so many trials, anchors among them."""

    @cached_property
    def _study(self) -> optuna.Study:
        """The study, made when the anchors are known: they are no part of the initial budget."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # grouped TPE
            sampler = self.sampler(self.initial + len(self._anchors))
        directions = ["minimize"] * len(self._problem.objectives)
        return optuna.create_study(directions=directions, sampler=sampler)

    def ask(self) -> Candidate:
        if self._anchors:
            self._study.add_trials([self._finished(trial) for trial in self._anchors])
            self._anchors = []
        self._asked = self._study.ask()
        values: dict[str, Value] = {}
        for name, parameter in self._problem.space.parameters.items():  # parents first
            if name in self._problem.space.active(values):
                values[name] = _suggested(self._asked, name, parameter)
        return Candidate.of(values)

    def tell(self, trial: Trial) -> None:
        self._told.append(trial)
        if self._asked is None:
            if self._problem.space.contains(trial.candidate):
                self._anchors.append(trial)
            return
        if trial.state is TrialState.COMPLETED:
            for name, share in self._constraints(trial).items():
                self._asked.set_constraint(name, share)
            self._study.tell(self._asked, self._problem.losses([trial])[0].tolist())
        else:
            self._study.tell(self._asked, state=optuna.trial.TrialState.FAIL)

    def _constraints(self, trial: Trial) -> Mapping[str, float]:
        """Return by what share each limit is exceeded, at most 0 where it is kept."""
        shares = excess(self._problem.losses([trial])[0], self._problem.bounds(self._told))
        names = [objective.metric for objective in self._problem.objectives]
        return {names[i]: float(shares[i]) for i in np.flatnonzero(np.isfinite(shares))}

    def _finished(self, trial: Trial) -> optuna.trial.FrozenTrial:
        parameters = self._problem.space.parameters
        done = trial.state is TrialState.COMPLETED
        return optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.FAIL,
            values=self._problem.losses([trial])[0].tolist() if done else None,
            params={name: _told(parameters[name], value) for name, value in trial.candidate.items},
            distributions={name: _distribution(parameters[name]) for name, _ in trial.candidate.items},
            constraints=dict(self._constraints(trial)) if done else {},
        )


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(range(parameter.count))
    top = parameter.from_unit(1.0)  # the last value that a whole number of steps reaches
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, int(top), log=parameter.log, step=parameter.step)
    return FloatDistribution(parameter.low, float(top), log=parameter.log, step=parameter.step)


def _told(parameter: Parameter, value: Value) -> Value:
    """Return a value as Optuna knows it: a choice by its place, for Optuna holds 1 and True for one."""
    return parameter.choices.index(value) if isinstance(parameter, Choice) else value


def _suggested(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    top = parameter.from_unit(1.0)
    if isinstance(parameter, Choice):
        place: int = trial.suggest_categorical(name, range(parameter.count))
        return parameter.choices[place]
    if isinstance(parameter, Int):
        return int(trial.suggest_int(name, parameter.low, int(top), step=parameter.step, log=parameter.log))
    value = trial.suggest_float(name, parameter.low, float(top), step=parameter.step, log=parameter.log)
    return parameter.from_unit(parameter.to_unit(value))  # with the digits that the space writes
