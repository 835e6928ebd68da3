"""What a sampler sees, and nothing more: a space, objectives, limits, and `preview`.

The seam between search and compression. Anything that can be put as a `Problem` (DTLZ2, a recorded
table, a stranger's simulator) plugs into every sampler without touching `compress`.

What objectives and trials alone decide (losses, limits, the comparison box, the front) are plain
functions: whoever reads the store needs them without a space or a preview.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpo.pareto import Array, Frame, Mask, nondominated
from hpo.space import Candidate, SearchSpace
from hpo.trial import Objective, Trial, TrialState


@dataclass(frozen=True)
class Preview:
    """What is known exactly of N candidates before any is run.

    `exact`: (N, E) losses (smaller is better) of the objectives in `Problem.exact`, in that order.
    `features`: (N, F) numbers that may help a model predict the rest, each about in [0, 1].
    `plans`: N plan hashes; equal hashes are the same trial. Empty: the candidate is refused.
    `refusals`: N reasons for refusal, empty where there is none; a refused row of the arrays is NaN.
    """

    exact: Array
    features: Array
    plans: tuple[str, ...]
    refusals: tuple[str, ...]
    shared: tuple[str, ...] = ()
    """N keys of work that trials with equal keys do only once, such as a healing; an empty key is no such
    work. Left out where a problem knows of none."""
    guesses: Array | None = None
    """(N, G) rough guesses of measured objectives, smaller is better, in no unit: good enough to begin with,
    when nothing has been measured. Left out where a problem has none."""


@dataclass(frozen=True)
class Problem:
    """A search problem as samplers see it."""

    space: SearchSpace
    objectives: tuple[Objective, ...]
    exact: tuple[str, ...]
    """Metrics among the objectives that `preview` knows exactly."""
    preview: Callable[[Sequence[Candidate]], Preview]
    tiers: tuple[str, ...] = ()
    """Notes that a running trial shows before its objectives are measured, in the order it does: cheap signs
    of what it will come to. Not every trial shows all of them."""
    spends: Literal["trials", "seconds"] = "trials"
    """What the budget is counted in, and so what a candidate's promise is weighed against."""
    moves: Callable[[Candidate, int, int], list[Candidate]] | None = None
    """From a candidate, a number and a seed to at most so many candidates near it that cost the same exactly
    or hardly more, in or out of the space; the same for the same seed. None where a problem has none."""

    def losses(self, trials: Sequence[Trial]) -> Array:
        """Return (N, M) losses, smaller is better; NaN where a trial has no value."""
        return losses(self.objectives, trials)

    def bounds(self, trials: Sequence[Trial]) -> Array:
        """Return (M,) upper bounds on the losses from the limits; inf where there is none (yet)."""
        return bounds(self.objectives, trials)

    def frame(self, trials: Sequence[Trial]) -> Frame | None:
        """Return the study's fixed comparison box, None until an anchor or limit fixes every side."""
        return frame(self.objectives, trials)


def losses(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Array:
    """Return (N, M) losses, smaller is better; NaN where a trial has no value."""
    rows = [
        [np.nan if (value := trial.value(o.metric)) is None else o.loss(value) for o in objectives]
        for trial in trials
    ]
    return np.array(rows, dtype=float).reshape(len(trials), len(objectives))


def bounds(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Array:
    """Return (M,) upper bounds on the losses from the limits; inf where there is none (yet)."""
    dense = dense_trial(trials)
    found = []
    for o in objectives:
        base = None if dense is None else dense.value(o.metric)
        limit = o.limit.resolve(base) if o.limit else None
        found.append(np.inf if limit is None else o.loss(limit))
    return np.array(found)


def frame(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Frame | None:
    """Return the study's fixed comparison box, None until an anchor or limit fixes every side.

    Reference: the limit, or 1.1 x the worst anchor, but no further than where a model is of no use to anybody
    (`Metric.useless`): a search without a limit on quality would else fill its front with absurdly
    small models. Ideal: 0 for a metric that is lower-better and positive, else a range above the best
    anchor. Only anchors count, so that the box never moves while the search goes on.
    """
    dense = dense_trial(trials)
    anchors = [t for t in trials if t.origin.startswith("anchor") and t.state is TrialState.COMPLETED]
    ideal, reference = [], []
    columns = zip(objectives, losses(objectives, anchors).T, bounds(objectives, trials), strict=True)
    for objective, column, bound in columns:
        known = column[np.isfinite(column)]
        if np.isfinite(bound):
            worst = float(bound)
        elif len(known):
            useless = _useless(objective, dense)
            worst = min(float(known.max() + 0.1 * abs(known.max()) + 1e-12), useless)
        else:
            return None
        positive = worst > 0 and (known >= 0).all()
        best = 0.0 if positive else min(float(known.min(initial=worst)), worst)
        ideal.append(best if positive else best - max(worst - best, abs(worst), 1e-12))
        reference.append(worst)
    return Frame(tuple(ideal), tuple(reference))


def _useless(objective: Objective, dense: Trial | None) -> float:
    """Return the loss from which a model is of no use to anybody; inf where that is not known."""
    base = None if dense is None else dense.value(objective.metric)
    found = None if base is None or objective.about.useless is None else objective.about.useless(base)
    return np.inf if found is None else objective.loss(found)


def within_limits(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Mask:
    """Return which trials are completed with every objective measured and within its limit, (N,)."""
    done = np.array([t.state is TrialState.COMPLETED for t in trials], dtype=bool)
    inside = (losses(objectives, trials) <= bounds(objectives, trials)).all(axis=1)
    return done & inside


def on_front(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Mask:
    """Return which trials are within the limits and dominated by no other such trial, (N,)."""
    mask = within_limits(objectives, trials)
    mask[mask] = nondominated(losses(objectives, trials)[mask])
    return mask


def dense_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the completed trial of the dense model, or None."""
    return next((t for t in trials if t.is_dense and t.state is TrialState.COMPLETED), None)


def feasible(problem: Problem, trials: Sequence[Trial]) -> Mask:
    """Return which trials are completed with every objective measured and within its limit, (N,)."""
    return within_limits(problem.objectives, trials)
