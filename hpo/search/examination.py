"""A model is examined on the trials it was told, each left out in turn."""

from collections.abc import Sequence

import numpy as np

from hpo.problem import Problem
from hpo.search.lessons import TOLD, Record
from hpo.search.outcomes import box
from hpo.search.process import left_out, reproducible
from hpo.search.surrogate import Surrogate
from hpo.skill import Skill
from hpo.trial import Trial

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
        record = Record.of(problem, history, frame)
        inside = np.asarray((frame.normalised(record.losses) < 1).all(axis=1))
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
            found.append(Skill(problem.objectives[place].metric, int(kept.sum()), error, coverage))
        return found
