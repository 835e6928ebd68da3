"""Optuna's samplers, asked afresh each time from our own history."""

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from hpo.problem import Problem
from hpo.search.botorch_import import importing_botorch
from hpo.search.generate import children
from hpo.search.history import start_left
from hpo.search.pool import Gate, Pool, fresh
from hpo.search.sobol import spread
from hpo.space import Candidate
from hpo.trial import Trial

if TYPE_CHECKING:
    from hpo.search.optuna_replay import Replay

_log = logging.getLogger(__name__)

_TRIES = 16
"""Proposals in a row that may be known or not allowed before a neighbour of theirs is taken."""


class TpeSampler:
    """Multivariate, multi-objective TPE (Bergstra et al. 2011; Ozaki et al. 2022) by way of Optuna.

    Conditional parameters are sampled in groups. Trials under way count as bad ones (constant liar), so
    that workers spread out. Broken limits are constraints (Watanabe and Hutter 2023), and so is a
    failure, with the largest violation there is; no value is made up for it.
    """

    summary = "Optuna's multi-objective TPE: fast at any number of trials, at home in conditional spaces"

    def __init__(self, initial: int = 8) -> None:
        self.initial = initial

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        start = spread(problem, history, start_left(history, self.initial, count), seed)
        if len(start) == count:
            return start
        from hpo.search.optuna_replay import Replay, tpe  # Optuna takes a second to import

        rng = np.random.default_rng([seed, len(history)])
        chosen, gate = Pool.of(problem, start), Gate.of(problem, history)
        with Replay(problem, history, start, tpe(int(rng.integers(2**31)))) as replay:
            while len(chosen) < count and len(found := _next(replay, gate.without(chosen), rng)):
                chosen = chosen.joined(found)
        return list(chosen.candidates)

    def prepare(self) -> None:
        """Import Optuna."""
        import_module("hpo.search.optuna_replay")


class OptunaGpSampler:
    """Optuna's GPSampler: its Gaussian processes and its logarithmic acquisitions.

    Expected improvement of one objective (Ament et al. 2023), of the hypervolume of two or three
    (Daulton et al. 2020), and of more an augmented Chebyshev scalarisation with weights drawn at each
    question (Knowles 2006), for Optuna's boxes take too long there. Broken limits are constraints
    (Gardner et al. 2014), trials under way are fantasised. All objectives are modelled, exact ones too.

    Optuna models the parameters that every trial has and draws the others at random. Here every trial has
    them all: what is not set stands at the middle of its range, in the trials and in each candidate that
    is judged. So branches share one model, and within a branch what it does not set makes no difference.
    Candidates come from a pool that may be proposed, and are judged by the acquisition and by their
    chance not to fail, which is learnt apart from the objectives; no value is made up for a failure.
    """

    summary = "Optuna's Gaussian processes: few trials, few conditions; faster than bayesian"

    def __init__(self, initial: int = 8) -> None:
        self.initial = initial

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        start = spread(problem, history, start_left(history, self.initial, count), seed)
        if len(start) == count:
            return start
        with importing_botorch():
            from hpo.search.optuna_gp import propose
        return propose(problem, history, start, count, seed)

    def prepare(self) -> None:
        """Import Optuna and BoTorch."""
        with importing_botorch():
            import_module("hpo.search.optuna_gp")


def _next(replay: "Replay", gate: Gate, rng: np.random.Generator) -> Pool:
    """Return a pool of one new candidate, or of none if the space holds no more."""
    proposed: list[Candidate] = []
    for _ in range(_TRIES):
        candidate = replay.propose()
        if len(found := gate.admit([candidate])):
            return found
        proposed.append(candidate)
        if (share := gate.excess(candidate)) > 0:
            # What is refused or breaks an exact limit is known before anything is run, so TPE learns it at
            # once. What was known already stays under way, for the liar to keep the next proposal off it.
            replay.reject(share)
    _log.debug("the last %d proposals of TPE were known or not allowed; taking a neighbour", _TRIES)
    found = gate.admit(children(gate.problem.space, proposed, 8 * _TRIES, rng))
    return (found if len(found) else fresh(gate, 1, int(rng.integers(2**31)))).first(1)
