"""Whether a search still gains: the growth of its hypervolume per hour, and how large it may yet be.

*What is estimated.* Each trial that is over has a gain g (by how much the front's share of the comparison
box rose when it finished; 0 for most) and a cost t (hours of worker time). Over the last trials after the
start design, in the order in which they finished, the expected gain per hour is sum(g) / sum(t).

*Its upper bound.* Improvements are taken as Poisson events in worker time whose sizes are what was seen:
sum(g) is then a weighted sum of Poisson counts, for which [Fay1997]_ give an upper bound at confidence c::

    y = sum(g) + w,    v = sum(g ** 2) + w ** 2,    bound = v / y * Q(y ** 2 / v; c)

with Q(a; c) the c-quantile of the gamma distribution of shape a and scale 1, and w the largest size that an
improvement not seen yet may have. Without any improvement it is w * -log(1 - c), the rule of three at 95 %;
with m improvements all of size w it is the exact bound on a Poisson mean [Garwood1936]_ times w.

*w* is the largest gain among the trials after the start in the window and in the one before it, or, where
these have none, the last gain that any trial had.

*Assumptions.* Gains do not become more frequent or larger than they just were; a breakthrough
of a kind that neither window has shown is not foreseen. Where gains decline, as they mostly do, the past
overstates the future, and the rule is late rather than early; so it is where noise in a measurement passes
for a gain. It is looked at after each trial, and the confidence is that of one look.

.. [Fay1997] Fay and Feuer. Confidence intervals for directly standardized rates: a method based on the gamma
   distribution. Statistics in Medicine 16, 1997.
.. [Garwood1936] Garwood. Fiducial limits for the Poisson distribution. Biometrika 28, 1936.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.pareto import Array
from hpo.problem import frame, losses, within_limits
from hpo.search.history import blames_candidate
from hpo.trial import Objective, Trial, TrialState

_ROUNDING = 1e-12
"""Share of the box below which a rise is arithmetic."""


@dataclass(frozen=True)
class Progress:
    """What each trial that is over brought and cost, in the order in which they finished.

    Raises:
        ValueError: lengths differ, a gain or a cost is negative or not finite.
    """

    gains: tuple[float, ...]
    """By how much the front's share of the comparison box rose."""
    hours: tuple[float, ...]
    """Worker time."""
    searched: tuple[bool, ...]
    """Whether the trial came after the anchors and the start design."""

    def __post_init__(self) -> None:
        if not len(self.gains) == len(self.hours) == len(self.searched):
            raise ValueError(
                f"{len(self.gains)} gains, {len(self.hours)} costs and {len(self.searched)} kinds of trial"
            )
        if not all(0 <= value < math.inf for value in (*self.gains, *self.hours)):
            raise ValueError("gains and hours must be finite and not negative")


@dataclass(frozen=True)
class Growth:
    """How fast a front grows, judged by the last trials."""

    gain: float
    """Share of the comparison box, summed over these trials."""
    trials: int
    hours: float
    """Their worker time."""
    bound: float
    """Share of the box that an hour may yet bring, at `confidence`."""
    confidence: float

    def words(self, asked: float, on_gpu: bool) -> str:
        """Return what is found against what is asked for, both as a share of the box per hour."""
        spent = f"{self.hours:.2g} GPU-hours" if on_gpu else f"{self.hours:.2g} h of worker time"
        verdict = "less than" if self.bound < asked else "not less than"
        return (
            f"the front grew by {self.gain:.2g} of the box in the last {self.trials} trials ({spent}): "
            f"at most {self.bound:.2g} {'a GPU-hour' if on_gpu else 'an hour'} "
            f"at {100 * self.confidence:g} %, {verdict} the {asked:g} asked for"
        )


def progress_of(
    objectives: Sequence[Objective], trials: Sequence[Trial], initial: int, workers_hour: float = 1.0
) -> Progress | None:
    """Return what the trials of a study brought and cost; None while nothing fixes the comparison box.

    Trials that failed by an accident of the machine show nothing of the search and are left out; those that
    failed or were stopped for what they tried cost their time and bring nothing.

    Args:
        initial: how many trials, by number and anchors apart, the start design has.
        workers_hour: what an hour of a worker counts for, such as the GPUs it holds.
    """
    box = frame(objectives, trials)
    if box is None:
        return None
    designed = [t.number for t in trials if not t.origin.startswith("anchor")][:initial]
    start = {*designed, *(t.number for t in trials if t.origin.startswith(("anchor", "given")))}
    over = [t for t in trials if t.state.is_final and not _is_accident(t)]
    over.sort(key=lambda t: (t.finished_at or 0.0, t.number))
    # Limits relative to the dense model need its trial, which need not be the first to finish.
    kept = dict(zip((t.number for t in trials), within_limits(objectives, trials), strict=True))
    inside = np.array([kept[t.number] for t in over], dtype=bool)
    values = box.hypervolumes(np.where(inside[:, None], losses(objectives, over), np.nan))
    gains: Array = np.diff(values, prepend=0.0)
    gains[gains < _ROUNDING] = 0.0
    return Progress(
        gains=tuple(map(float, gains)),
        hours=tuple(t.seconds / 3600 * workers_hour for t in over),
        searched=tuple(t.number not in start for t in over),
    )


def _is_accident(trial: Trial) -> bool:
    return trial.state is TrialState.FAILED and not blames_candidate(trial)


def growth(progress: Progress, trials: int, confidence: float) -> Growth | None:
    """Return how fast the front grows, judged by the last `trials` after the start design.

    None where it cannot be told: so many are not over yet, they took no time, or nothing of the box is
    covered at all.
    """
    searched = np.flatnonzero(progress.searched)
    if len(searched) < trials:
        return None
    gains, hours = np.array(progress.gains), np.array(progress.hours)
    window = gains[searched[-trials:]]
    recent = float(gains[searched[-2 * trials :]].max())
    unseen = recent or next((float(g) for g in gains[::-1] if g > 0), 0.0)
    spent = float(hours[searched[-trials:]].sum())
    if unseen == 0 or spent == 0:
        return None
    bound = gain_bound(window, unseen, confidence) / spent
    return Growth(float(window.sum()), trials, spent, bound, confidence)


def gain_bound(gains: Array, unseen: float, confidence: float) -> float:
    """Return the upper bound on the expected sum of `gains` (N,), by [Fay1997]_; `unseen` is their w."""
    total = float(gains.sum()) + unseen
    squares = float((gains**2).sum()) + unseen**2
    return squares / total * gamma_quantile(total**2 / squares, confidence)


def gamma_quantile(shape: float, probability: float) -> float:
    """Return the quantile of the gamma distribution of scale 1."""
    from scipy.special import gammaincinv  # half a second that most studies do not need

    return float(gammaincinv(shape, probability))
