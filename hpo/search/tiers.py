"""What a trial will come to, judged by what it has shown so far, learnt from trials that went all the way.

Letters: N trials, M objectives, T tiers. A tier is a figure that a running trial reports before its
objectives are measured (`Problem.tiers`): how far the compressed model is from the dense one, its loss after
a short healing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from botorch.models import SingleTaskGP
from numpy.typing import NDArray

from hpo.pareto import Frame
from hpo.problem import Problem
from hpo.search.inputs import Inputs
from hpo.search.outcomes import NoModel, Scale, dense_losses
from hpo.search.pool import Pool, previewed
from hpo.search.process import Lesson, fit, left_out, means, reproducible
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]

FEWEST = 8
"""Completed trials with the same tiers below which nothing is predicted."""


def seen(problem: Problem, trial: Trial) -> tuple[str, ...]:
    """Return the tiers that a trial has shown, in the problem's order."""
    return tuple(name for name in problem.tiers if isinstance(trial.notes.get(name), float))


@dataclass(frozen=True)
class Expected:
    """What is expected of one objective of one trial, on the objective's scale."""

    mean: float
    scale: Scale
    errors: Array
    """(N,) what each of those was, less what was predicted of it from the others."""

    def bound(self, confidence: float) -> float:
        """Return the loss that the trial stays above with this confidence; -inf where that cannot be said.

        The prediction and the error that a share ``1 - confidence`` of the others stayed below (jackknife+,
        Barber et al. 2021, Annals of Statistics 49: at least ``1 / (1 - confidence) - 1`` are needed).
        """
        place = int(np.floor((1 - confidence) * (len(self.errors) + 1) + 1e-9))
        if place < 1:
            return -np.inf
        low = self.mean + float(np.sort(self.errors)[place - 1])
        return float(self.scale.backward(np.array([low]))[0])

    @property
    def loss(self) -> float:
        return float(self.scale.backward(np.array([self.mean]))[0])

    @property
    def deviation(self) -> float:
        """The standard deviation of the loss, as large as the errors have been."""
        spread = float(np.sqrt((self.errors**2).mean()))
        return float(self.scale.backward(np.array([self.mean + spread]))[0]) - self.loss


@dataclass(frozen=True)
class Forecaster:
    """Gaussian processes from a candidate and its tiers to its objectives, for trials with the same tiers."""

    problem: Problem
    shown: tuple[str, ...]
    inputs: Inputs
    tiers: tuple[Scale, ...]
    least: Array
    """(T,) the least figures learnt from. A lower one is seen as that: a scale may end just below it."""
    models: dict[int, tuple[SingleTaskGP, Scale, Array]]
    """The processes by the place of their objective, with its scale and the errors of leaving out each
    trial in turn."""

    @classmethod
    def of(
        cls, problem: Problem, history: Sequence[Trial], shown: Sequence[str], frame: Frame
    ) -> "Forecaster":
        """Fit to the completed trials that have shown at least these tiers.

        Raises:
            NoModel: there are fewer than `FEWEST` of them, or a fit breaks down.
        """
        done = [t for t in history if t.state is TrialState.COMPLETED and set(shown) <= set(seen(problem, t))]
        told, pool = previewed(problem, done)
        if len(told) < FEWEST:
            raise NoModel(f"{len(told)} trials have shown {', '.join(shown)}, {FEWEST} are needed")
        inputs = Inputs.of(problem.space, pool)
        values = _values(told, shown)
        # The upper quarter is drawn in: what is broken is broken, and leaves the fit to the rest.
        tiers = tuple(Scale.of(column, float(np.quantile(column, 0.75))) for column in values.T)
        rows, least = np.hstack([inputs.rows(pool), _scaled(values, tiers)]), values.min(axis=0)
        losses, dense = problem.losses(told), dense_losses(problem, history)
        models = {}
        with reproducible(0):
            for place, objective in enumerate(problem.objectives):
                has = np.isfinite(losses[:, place])
                if objective.metric not in problem.exact and has.sum() >= FEWEST:
                    scale = Scale.of(losses[has, place], frame.reference[place], dense[place])
                    lesson = Lesson.of(rows[has], scale.forward(losses[has, place]))
                    model = fit(lesson)
                    models[place] = model, scale, lesson.outcomes - left_out(model, lesson)[0]
        return cls(problem, tuple(shown), inputs, tiers, least, models)

    def expected(self, trials: Sequence[Trial]) -> list[dict[int, Expected]]:
        """Return, for each trial that has shown the tiers, what is expected of its objectives, by place."""
        pool = Pool.of(self.problem, [trial.candidate for trial in trials])
        values = np.maximum(_values(trials, self.shown), self.least)
        rows = np.hstack([self.inputs.rows(pool), _scaled(values, self.tiers)])
        found: list[dict[int, Expected]] = [{} for _ in trials]
        for place, (model, scale, errors) in self.models.items():
            for row, mean in enumerate(means(model, rows).tolist()):
                found[row][place] = Expected(mean, scale, errors)
        return found


def _values(trials: Sequence[Trial], shown: Sequence[str]) -> Array:
    return np.array([[float(t.notes[name]) for name in shown] for t in trials]).reshape(
        len(trials), len(shown)
    )


def _scaled(values_NT: Array, tiers: Sequence[Scale]) -> Array:
    """Return the tiers in the unit of the other inputs, which lie in about [0, 1]."""
    columns = [scale.forward(column) / 4 + 0.5 for scale, column in zip(tiers, values_NT.T, strict=True)]
    return np.column_stack(columns) if columns else np.empty((len(values_NT), 0))
