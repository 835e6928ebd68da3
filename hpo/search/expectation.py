"""What one earlier study lets one expect of candidates in one objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from botorch.models import SingleTaskGP
from numpy.typing import NDArray

from hpo.problem import Problem
from hpo.search.earlier import FEWEST, EarlierStudy
from hpo.search.inputs import Inputs
from hpo.search.outcomes import NoModel, Scale
from hpo.search.pool import Pool, previewed
from hpo.search.process import Lesson, fit, means
from hpo.trial import Trial

Array = NDArray[np.float64]

_MOST = 300
"""Trials that a process is fitted to; of a longer study, so many evenly spread over its course."""
_CHUNK = 1024
"""Candidates asked about at once."""


@dataclass(frozen=True)
class Expectation:
    """A Gaussian process of one metric of one earlier study, asked about candidates of a new problem.

    The earlier trials' candidates are seen as the new problem previews them: their values, what their plans
    are like on the new model, and what they cost there. So nothing is compared across models but outcomes,
    and those relative to the dense model. The answer is in shares of what the earlier study has seen of the
    metric, on the scale by which a search judges losses (`hpo.search.outcomes.Scale`): 0 for its best trial
    and 1 for its worst.
    """

    study: str
    metric: str
    inputs: Inputs
    model: SingleTaskGP
    low: float
    width: float

    @classmethod
    def of(cls, problem: Problem, earlier: EarlierStudy, metric: str) -> Self:
        """Fit the process.

        Raises:
            NoModel: the new problem plans fewer than `FEWEST` of the study's candidates that have a value of
                the metric, or they do not differ, or no fit was found.
        """
        trials, pool = previewed(problem, _thinned(earlier.having(metric)))
        if len(trials) < FEWEST:
            raise NoModel(f"only {len(trials)} candidates of {earlier.name!r} can be planned here")
        relative = earlier.relative(metric, trials)
        dense = float(earlier.relative(metric, [earlier.dense])[0])
        scale = Scale.of(relative, earlier.reference(metric), dense)
        outcomes = scale.forward(relative)
        low, high = float(outcomes.min()), float(outcomes.max())
        inputs = Inputs.of(problem.space, pool)
        model = fit(Lesson.of(inputs.rows(pool), outcomes))
        return cls(earlier.name, metric, inputs, model, low, (high - low) or 1.0)

    def shares(self, pool: Pool) -> Array:
        """Return what is expected of candidates, (N,) in [0, 1], smaller is better."""
        rows = self.inputs.rows(pool)
        parts = [means(self.model, rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]
        found = np.concatenate([np.empty(0), *parts])
        return np.clip((found - self.low) / self.width, 0.0, 1.0)


def _thinned(trials: Sequence[Trial]) -> list[Trial]:
    places = np.linspace(0, len(trials) - 1, min(len(trials), _MOST)).round().astype(int)
    return [trials[i] for i in np.unique(places)]
