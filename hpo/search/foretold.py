"""What stopped trials would have come to, as their tiers foretell it.

Letters: N trials, M objectives.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.pareto import Frame
from hpo.problem import Problem
from hpo.search.outcomes import NoModel
from hpo.search.tiers import Expected, Forecaster, seen
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]


def foretold(
    problem: Problem, history: Sequence[Trial], stopped: Sequence[Trial], frame: Frame, most: int
) -> tuple[Array, Array]:
    """Return losses and their standard deviations, each (N, M), of the N stopped trials; NaN where nothing
    can be told.

    They are the means of the study's own forecasts (`hpo.search.tiers`), learnt from the first `most`
    completed trials, and as uncertain as those forecasts have proved on the trials that went all the way.
    """
    losses = np.full((len(stopped), len(problem.objectives)), np.nan)
    deviations = np.zeros_like(losses)
    completed = [trial for trial in history if trial.state is TrialState.COMPLETED][:most]
    for rows, found in _forecasts(problem, completed, stopped, frame):
        for row, expected in zip(rows, found, strict=True):
            for place, one in expected.items():
                losses[row, place], deviations[row, place] = one.loss, one.deviation
    return losses, deviations


def _forecasts(
    problem: Problem, completed: Sequence[Trial], stopped: Sequence[Trial], frame: Frame
) -> Iterator[tuple[list[int], list[dict[int, Expected]]]]:
    shown = [seen(problem, trial) for trial in stopped]
    for tiers in sorted(set(shown) - {()}):
        rows = [row for row, one in enumerate(shown) if one == tiers]
        try:
            forecaster = Forecaster.of(problem, completed, tiers, frame)
        except NoModel:
            continue
        yield rows, forecaster.expected([stopped[row] for row in rows])
