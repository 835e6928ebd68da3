"""SMAC3 (Lindauer et al. 2022): random forests on the random weightings of ParEGO (Knowles 2006)."""

import logging
import shutil
import tempfile
import warnings
import weakref
from pathlib import Path

import numpy as np
from ConfigSpace import (
    AndConjunction,
    CategoricalHyperparameter,
    Configuration,
    ConfigurationSpace,
    InCondition,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from smac import HyperparameterOptimizationFacade, Scenario
from smac.multi_objective.parego import ParEGO
from smac.runhistory.dataclasses import TrialInfo, TrialValue
from smac.runhistory.enumerations import StatusType

from benchmarks.search.peers import places
from hpo.problem import Problem
from hpo.space import Candidate, Choice, Float, Int, SearchSpace
from hpo.trial import Trial, TrialState

BUDGET = 1_000
"""Trials that SMAC is told it has; it stops proposing beyond them."""


class SmacParEgo:
    """With the facade for hyperparameters, and the conditions of the space as ConfigSpace has them.

    SMAC knows no limits, so it is told none. A
    failure counts as crashed, at the worst loss so far of each objective. An anchor from outside the
    space is no configuration and cannot be told.
    """

    def __init__(self, problem: Problem, seed: int, initial: int) -> None:
        logging.getLogger("smac").setLevel(logging.ERROR)
        self._problem = problem
        self._space = _configurations(problem.space, seed)
        folder = tempfile.mkdtemp(prefix="smac-")  # it keeps a record, wanted or not
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        scenario = Scenario(
            self._space,
            output_directory=Path(folder),
            objectives=[objective.metric for objective in problem.objectives],
            deterministic=True,
            n_trials=BUDGET,
            seed=seed,
        )
        facade = HyperparameterOptimizationFacade
        self._smac = facade(
            scenario,
            _no_function,
            initial_design=facade.get_initial_design(scenario, n_configs=initial, max_ratio=1.0),
            multi_objective_algorithm=ParEGO(scenario),
            logging_level=logging.ERROR,
            overwrite=True,
        )
        self._told: list[Trial] = []
        self._asked: TrialInfo | None = None

    def ask(self) -> Candidate:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # SMAC averages over no instances
            self._asked = self._smac.ask()
        return places.candidate(self._problem.space, dict(self._asked.config))

    def tell(self, trial: Trial) -> None:
        self._told.append(trial)
        info = self._asked
        if info is None:
            if not self._problem.space.contains(trial.candidate):
                return
            config = Configuration(self._space, places.places(self._problem.space, trial.candidate))
            info = TrialInfo(config, seed=0)  # the seed of what is deterministic
        done = trial.state is TrialState.COMPLETED
        status = StatusType.SUCCESS if done else StatusType.CRASHED
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            self._smac.tell(info, TrialValue(cost=self._cost(trial), time=trial.seconds, status=status))

    def _cost(self, trial: Trial) -> list[float]:
        if trial.state is TrialState.COMPLETED:
            return [float(loss) for loss in self._problem.losses([trial])[0]]
        known = self._problem.losses([t for t in self._told if t.state is TrialState.COMPLETED])
        worst: list[float] = known.max(axis=0, initial=-np.inf).tolist()
        return worst if len(known) else [1.0] * len(worst)


def _no_function(config: Configuration, seed: int = 0) -> float:
    """Stand in for the target: the search is asked and told, and never runs one."""
    raise NotImplementedError


def _configurations(space: SearchSpace, seed: int) -> ConfigurationSpace:
    found = ConfigurationSpace(seed=seed)
    known = {name: _hyperparameter(name, p) for name, p in space.parameters.items()}
    found.add(list(known.values()))
    for name, parameter in space.parameters.items():
        conditions = [
            InCondition(
                known[name], known[parent], [places.place(space.parameters[parent], v) for v in values]
            )
            for parent, values in parameter.when.items()
        ]
        if conditions:
            found.add(AndConjunction(*conditions) if len(conditions) > 1 else conditions[0])
    return found


def _hyperparameter(
    name: str, parameter: Float | Int | Choice
) -> CategoricalHyperparameter | UniformFloatHyperparameter | UniformIntegerHyperparameter:
    count = parameter.count or 1
    if isinstance(parameter, Choice) or parameter.count == 1:
        return CategoricalHyperparameter(name, list(range(count)))
    if places.by_place(parameter):
        return UniformIntegerHyperparameter(name, 0, count - 1)
    kind = UniformFloatHyperparameter if isinstance(parameter, Float) else UniformIntegerHyperparameter
    return kind(name, parameter.low, parameter.high, log=parameter.log)
