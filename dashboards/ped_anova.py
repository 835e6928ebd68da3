"""PED-ANOVA [Watanabe2023]_ of a study's trials, computed by Optuna on a copy of them in memory.

How different the values of a parameter are among the best trials from those among all, as the Pearson
divergence of their densities. A parameter that only one branch of a space has is judged among the trials that
have it, weighed by how many of all and of the best these are [CondPedAnova2026]_.

.. [Watanabe2023] Watanabe, Bansal, Hutter. PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
   Arbitrary Subspaces. IJCAI 2023.
.. [CondPedAnova2026] Conditional PED-ANOVA: Hyperparameter Importance in Hierarchical & Dynamic Search
   Spaces. KDD 2026, arXiv:2601.20800.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from hpo.pareto import Array
from hpo.space import Choice, Float, Int, SearchSpace, Value
from hpo.trial import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


def divergences(
    space: SearchSpace, names: Sequence[str], trials: Sequence[Trial], losses_NM: Array, best: float
) -> Array:
    """Return (P, M) divergences, from 0 on, of the parameters `names` for each objective.

    NaN for an objective that fewer than two trials have, or in which all came to the same.

    Args:
        trials: N of `space`; each of `names` is a parameter of some of them.
        losses_NM: smaller is better, NaN where a trial has none.
        best: the share of the trials that are compared with all.
    """
    from optuna.importance import PedAnovaImportanceEvaluator  # the other pages need none of it

    found = np.full((len(names), losses_NM.shape[1]), np.nan)
    with _quiet():
        study = _study(space, trials)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=best)
        for column, losses_N in enumerate(losses_NM.T):
            known = losses_N[np.isfinite(losses_N)]
            if len(known) < 2 or known.min() == known.max():
                continue
            by_name = evaluator.evaluate(study, list(names), target=_Target(losses_N))
            found[:, column] = [by_name[name] for name in names]
    return found


class _Target:
    """What is to be small, by a trial's place."""

    def __init__(self, losses_N: Array) -> None:
        self._losses = losses_N

    def __call__(self, trial: "optuna.trial.FrozenTrial") -> float:
        return float(self._losses[trial.number])


@contextmanager
def _quiet() -> Iterator[None]:
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            # It says that smaller targets are better, and which branches have few trials.
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _study(space: SearchSpace, trials: Sequence[Trial]) -> "optuna.Study":
    import optuna

    distributions = {name: _distribution(p) for name, p in space.parameters.items()}
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                value=0.0,  # the targets are given beside the study
                params={name: _told(space.parameters[name], value) for name, value in trial.candidate.items},
                distributions={name: distributions[name] for name, _ in trial.candidate.items},
            )
            for trial in trials
        ]
    )
    return study


def _distribution(parameter: Float | Int | Choice) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Choice):
        return CategoricalDistribution(range(parameter.count))
    top = parameter.from_unit(1.0)  # the last value that a whole number of steps reaches
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, int(top), log=parameter.log, step=parameter.step)
    return FloatDistribution(parameter.low, float(top), log=parameter.log, step=parameter.step)


def _told(parameter: Float | Int | Choice, value: Value) -> Value:
    """Return a value as Optuna takes it: a choice by its place."""
    return parameter.choices.index(value) if isinstance(parameter, Choice) else value
