"""How many seconds a trial would keep a worker busy, learnt from those that are done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from botorch.models import SingleTaskGP
from numpy.typing import NDArray

from hpo.problem import Problem
from hpo.search.inputs import Inputs
from hpo.search.outcomes import NoModel
from hpo.search.pool import Pool, previewed
from hpo.search.process import Lesson, fit, means
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]

_FEWEST = 8
"""Completed trials below which all are taken to cost the same."""
_MOST = 128
"""Completed trials learnt from, the latest: seconds are learnt easily, and fits grow dear."""


@dataclass(frozen=True)
class Cost:
    """A Gaussian process of the logarithm of seconds, from a candidate's values, its plan's features, its
    exact losses, and whether work that it shares with others (`Preview.shared`) is done already."""

    inputs: Inputs
    done: frozenset[str]
    """Keys of shared work that is done."""
    model: SingleTaskGP
    centre: float
    spread: float

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial], inputs: Inputs) -> Self:
        """Fit to the completed trials.

        Raises:
            NoModel: there are too few, they all took the same time, or the fit broke down.
        """
        told, pool = previewed(problem, [t for t in history if t.state is TrialState.COMPLETED])
        spared, done = _spared(pool)
        timed = np.flatnonzero([trial.seconds > 0 for trial in told])[-_MOST:]
        if len(timed) < _FEWEST:
            raise NoModel(f"{len(timed)} trials have been timed, {_FEWEST} are needed")
        logs = np.log([told[i].seconds for i in timed])
        centre, spread = float(logs.mean()), float(logs.std())
        if spread < 1e-6:
            raise NoModel("all trials took the same time")
        rows = np.column_stack([inputs.rows(pool.take(timed)), spared[timed]])
        return cls(inputs, done, fit(Lesson.of(rows, (logs - centre) / spread)), centre, spread)

    def seconds(self, pool: Pool) -> Array:
        """Return the seconds that candidates are expected to take, shape (N,)."""
        spared = np.array([key in self.done for key in pool.shared], dtype=float)
        rows = np.column_stack([self.inputs.rows(pool), spared])
        found: Array = np.exp(means(self.model, rows) * self.spread + self.centre)
        return found


def _spared(pool: Pool) -> tuple[Array, frozenset[str]]:
    """Return which trials, in their order, were spared shared work (1.0), and all keys that are done."""
    done: set[str] = set()
    found = []
    for key in pool.shared:
        found.append(float(bool(key) and key in done))
        done |= {key} - {""}
    return np.array(found), frozenset(done)
