"""A model is examined on the trials it was told, each left out in turn."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.problem import Problem
from hpo.search.lessons import TOLD
from hpo.search.outcomes import Scale, box
from hpo.search.process import left_out, reproducible
from hpo.search.surrogate import Surrogate
from hpo.skill import MOST_FORETOLD, Foretold, Skill
from hpo.trial import Objective, Trial

Array = NDArray[np.float64]

FEWEST = 5
"""Trials inside the limits below which nothing is said of a model."""

_NINETY = 1.6449
"""Standard deviations on both sides that hold 90 % of a normal distribution."""


def examined(problem: Problem, history: Sequence[Trial], seed: int) -> list[Skill]:
    """Return the skill at each modelled objective; of those with fewer than `FEWEST` trials where fronts are,
    nothing.

    Raises:
        NoModel: there is too little to learn from.
    """
    with reproducible(seed):
        frame = box(problem, history)
        surrogate = Surrogate.of(problem, history, frame)
        record = surrogate.record
        # What a stopped trial would have come to is itself foretold: no truth to judge by.
        inside = record.completed & (frame.normalised(record.losses) < 1).all(axis=1)
        found = []
        for place, learnt in surrogate.learnt.items():
            told = record.chosen(record.having(place, len(record)), TOLD)
            kept = inside[told]
            if kept.sum() < FEWEST:
                continue
            means, deviations = (values[kept] for values in left_out(learnt.model, learnt.lesson))
            truth = learnt.lesson.outcomes[kept]
            off = np.abs(means - truth)
            error = float(np.sqrt((off**2).mean()) / max(float(truth.std()), 1e-12))
            coverage = float((off <= _NINETY * deviations).mean())
            numbers = record.numbers[told[kept]]
            said = _foretold(problem.objectives[place], learnt.scale, numbers, (truth, means, deviations))
            found.append(Skill(problem.objectives[place].metric, int(kept.sum()), error, coverage, said))
        return found


def _foretold(
    objective: Objective, scale: Scale, numbers: NDArray[np.int_], judged: tuple[Array, Array, Array]
) -> tuple[Foretold, ...]:
    """Return what was said of each trial of these numbers in the metric's unit; `judged` holds outcomes,
    means and deviations on the scale."""
    truth, means, deviations = judged
    margin = _NINETY * deviations
    columns = [scale.backward(values) for values in (truth, means, means - margin, means + margin)]
    found = []
    for row in np.linspace(0, len(numbers) - 1, min(len(numbers), MOST_FORETOLD)).astype(int):
        measured, expected, low, high = (objective.loss(float(column[row])) for column in columns)
        found.append(Foretold(int(numbers[row]), measured, expected, min(low, high), max(low, high)))
    return tuple(found)
