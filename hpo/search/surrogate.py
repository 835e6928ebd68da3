"""What is expected of candidates: Gaussian processes where trials must tell, exact values elsewhere.

Letters: N candidates, M objectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from botorch.models import SingleTaskGP
from numpy.typing import NDArray

from hpo.pareto import Frame
from hpo.problem import Problem
from hpo.search.generate import sobol
from hpo.search.history import blames_candidate
from hpo.search.inputs import Inputs
from hpo.search.lessons import FITTED, TOLD, Record, milestone
from hpo.search.outcomes import NoModel, Scale, dense_losses
from hpo.search.pool import Pool
from hpo.search.process import Lesson, fit, joint_samples
from hpo.trial import Trial

Array = NDArray[np.float64]

_DOUBT = 0.1
"""Least standard deviation with which a chance of success is believed."""

_REFERENCE = 256
"""Quasi-random candidates from which the units of inputs are taken."""


@dataclass(frozen=True, eq=False)
class Learnt:
    """One objective as a process sees it."""

    model: SingleTaskGP
    scale: Scale
    lesson: Lesson
    """What it has been told, on the scale."""

    @classmethod
    def of(
        cls, record: Record, place: int, inputs_ND: Array, early: int, reference: float, dense: float
    ) -> Self:
        """Tell a process of one objective what trials came to; its parameters are fitted to the early ones.

        Raises:
            NoModel: fewer than two distinct candidates have a value.
        """

        def lesson(count: int, most: int) -> tuple[Lesson, Scale]:
            rows = record.chosen(record.having(place, count), most)
            scale = Scale.of(record.losses[rows, place], reference, dense)
            return record.lesson(rows, place, inputs_ND, scale), scale

        told, scale = lesson(len(record), TOLD)
        enough = len(record.having(place, early)) > 1
        return cls(fit(told, lesson(early, FITTED)[0] if enough else None), scale, told)


@dataclass(frozen=True, eq=False)
class Success:
    """A process of 1 where trials succeed and 0 where they fail."""

    model: SingleTaskGP
    mean: float
    spread: float

    @classmethod
    def of(cls, succeeded_ND: Array, failed_ND: Array) -> Self | None:
        """Return the process; None where nothing, or everything, has failed."""
        if not len(failed_ND) or not len(succeeded_ND):
            return None
        label = np.repeat([1.0, 0.0], [len(succeeded_ND), len(failed_ND)])
        mean, spread = float(label.mean()), float(label.std())
        # Newest last in both: of many, as many as a process is told.
        rows = np.vstack([succeeded_ND, failed_ND])
        kept = np.linspace(0, len(rows) - 1, min(len(rows), TOLD)).astype(int)
        told = Lesson.of(rows[kept], (label[kept] - mean) / spread)
        fitted = told.take(np.linspace(0, len(kept) - 1, min(len(kept), FITTED)).astype(int))
        return cls(fit(told, fitted), mean, spread)

    def chances(self, inputs_ND: Array) -> Array:
        """Return the probability of success, (N,)."""
        with torch.no_grad():
            found = self.model.posterior(torch.from_numpy(inputs_ND))
            doubt = (self.spread * found.variance.clamp_min(0.0).sqrt()).clamp_min(_DOUBT)
            expected = self.mean + self.spread * found.mean
            chances: Array = torch.special.ndtr((expected - 0.5) / doubt)[:, 0].numpy()
        return chances


@dataclass(frozen=True, eq=False)
class Surrogate:
    """What is expected of any candidate, from what the history says of others.

    An objective that the preview knows is never modelled. A trial that was stopped teaches what its tiers
    foretell, with the doubt that is in it. A failure teaches where failures are, by a process of its own, and
    no loss is made up for it.
    """

    record: Record
    """What it was made of."""
    inputs: Inputs
    learnt: dict[int, Learnt]
    """By the place of their objective."""
    exact: tuple[int, ...]
    """The places of the objectives that the preview knows, in its order."""
    success: Success | None

    def losses(self, pool: Pool, count: int, rng: np.random.Generator) -> Array:
        """Return joint samples of the losses of a pool, shape (count, N, M)."""
        rows = self.inputs.rows(pool)
        found = np.empty((count, len(pool), len(self.learnt) + len(self.exact)))
        found[:, :, self.exact] = pool.exact
        for place, expected in self.learnt.items():
            found[:, :, place] = expected.scale.backward(joint_samples(expected.model, rows, count, rng))
        return found

    def chances(self, pool: Pool) -> Array:
        """Return the probability that each candidate of a pool does not fail, shape (N,)."""
        return np.ones(len(pool)) if self.success is None else self.success.chances(self.inputs.rows(pool))

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial], frame: Frame) -> Self:
        """Fit what must be fitted.

        Parameters are fitted anew when the study has grown by a tenth, to at most `FITTED` trials; processes
        are told all trials, or `TOLD` of them.

        Raises:
            NoModel: an objective has been measured at fewer than two distinct candidates.
        """
        record = Record.of(problem, history, frame)
        early = milestone(len(record))
        reference = Pool.of(problem, sobol(problem.space, _REFERENCE, seed=0))
        inputs = Inputs.of(problem.space, record.pool.first(early).joined(reference))
        rows, dense = inputs.rows(record.pool), dense_losses(problem, history)
        metrics = [objective.metric for objective in problem.objectives]
        learnt = {}
        for place, metric in enumerate(metrics):
            if metric not in problem.exact:
                if not len(record.having(place, len(record))):
                    raise NoModel(f"no trial has a value for {metric}")
                learnt[place] = Learnt.of(record, place, rows, early, frame.reference[place], dense[place])
        exact = tuple(metrics.index(metric) for metric in problem.exact)
        failed = Pool.of(problem, [trial.candidate for trial in history if blames_candidate(trial)])
        return cls(record, inputs, learnt, exact, Success.of(rows, inputs.rows(failed)))
