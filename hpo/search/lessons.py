"""What processes are told of a history: which trials, with which noise.

Letters: N trials, M objectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hpo.pareto import Frame, nondominated
from hpo.problem import Problem
from hpo.search.foretold import foretold
from hpo.search.outcomes import Scale
from hpo.search.pool import Pool, previewed
from hpo.search.process import Lesson
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

FITTED, TOLD = 256, 1000
"""Trials to which parameters are fitted, and trials that a process is told, at most."""

_GROWTH = 1.1
"""Of a study between two fits of the parameters; in between, processes are told more and not refitted."""

_FRONT = 200
"""Members of a front, evenly taken, from which distances are counted."""


def milestone(count: int) -> int:
    """Return the size, up to `count`, at which parameters are fitted anew: each to 20, then a tenth more."""
    size = min(count, 20)
    while (following := max(size + 1, int(size * _GROWTH))) <= count:
        size = following
    return size


@dataclass(frozen=True, eq=False)
class Record:
    """What has been measured, as losses."""

    pool: Pool
    """The N candidates, in order of their trials."""
    losses: Array
    """(N, M); NaN where a trial has none."""
    deviations: Array
    """(N, M) standard deviations of what is known to be noisy, in units of the loss; 0 elsewhere."""
    completed: NDArray[np.bool_]
    """(N,) whether a trial went all the way; the others were stopped, and are foretold."""
    numbers: NDArray[np.int_]
    """(N,) of the trials."""

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial], frame: Frame) -> Self:
        """Return what completed trials have measured, and what the tiers of stopped ones foretell."""
        ended = [t for t in history if t.state in (TrialState.COMPLETED, TrialState.STOPPED)]
        told, pool = previewed(problem, ended)
        losses = problem.losses(told)
        deviations = np.array([[_deviation(trial, o.metric) for o in problem.objectives] for trial in told])
        deviations = deviations.reshape(losses.shape)
        completed = np.array([trial.state is TrialState.COMPLETED for trial in told], dtype=bool)
        if len(stopped := np.flatnonzero(~completed)):
            cut = [told[row] for row in stopped]
            expected, doubt = foretold(problem, history, cut, frame, milestone(len(told)))
            unknown = np.isnan(losses[stopped])
            losses[stopped] = np.where(unknown, expected, losses[stopped])
            deviations[stopped] = np.where(unknown, doubt, deviations[stopped])
        numbers = np.array([trial.number for trial in told], dtype=int)
        return cls(pool, losses, deviations, completed, numbers)

    def __len__(self) -> int:
        return len(self.pool)

    def having(self, place: int, among: int) -> Rows:
        """Return which of the first so many rows have a value for an objective."""
        return np.flatnonzero(np.isfinite(self.losses[:among, place]))

    def lesson(self, rows: Rows, place: int, inputs_ND: Array, scale: Scale) -> Lesson:
        """Return some rows of one objective on a scale. `inputs_ND` are those of all rows."""
        losses, deviations = self.losses[rows, place], self.deviations[rows, place]
        outcomes = scale.forward(losses)
        return Lesson(inputs_ND[rows], outcomes, (scale.forward(losses + deviations) - outcomes) ** 2)

    def chosen(self, rows: Rows, most: int) -> Rows:
        """Return at most so many of these rows, in order: half of them nearest to the front, the rest evenly
        spread over time.

        Near is by how much all losses, in shares of the front's width, would have to shrink for a row to be
        on the front. A loss that is unknown counts as the worst.
        """
        if len(rows) <= most:
            return rows
        losses = self.losses[rows]
        worst = np.nanmax(np.where(np.isfinite(losses), losses, np.nan), axis=0)
        losses = np.where(np.isfinite(losses), losses, worst)
        front = losses[nondominated(losses)]
        width = np.ptp(front, axis=0)
        unit = np.where(width > 0, width, 1.0)
        few = front[np.linspace(0, len(front) - 1, min(len(front), _FRONT)).astype(int)]
        behind = ((losses[:, None] - few) / unit).min(axis=2).max(axis=1)
        near = np.argsort(behind, kind="stable")[: most // 2]
        rest = np.setdiff1d(np.arange(len(rows)), near)
        spread = rest[np.linspace(0, len(rest) - 1, most - len(near)).astype(int)]
        found: Rows = rows[np.sort(np.concatenate([near, spread]))]
        return found


def _deviation(trial: Trial, metric: str) -> float:
    """Return the standard deviation of the mean of what was measured repeatedly, as timings are.

    What is measured once, a perplexity on a fixed text, may state a spread over texts; those are the same for
    all trials, and no noise between them.
    """
    found = trial.measurement(metric)
    return 0.0 if found is None or found.repeats < 2 else found.spread / found.repeats**0.5
