"""Losses as a model wants to see them, and as the search judges them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from hpo.pareto import Frame, nondominated
from hpo.problem import Problem, dense_trial
from hpo.trial import Trial, TrialState

Array = NDArray[np.float64]


class NoModel(Exception):
    """There is too little to learn from, or a fit broke down; the message says which."""


@dataclass(frozen=True)
class Scale:
    """A reversible map from the losses of one objective to numbers of mean 0 and spread 1.

    Positive losses go through a logarithm where that makes them more symmetric (latencies, perplexities
    of broken models). Where the dense model is the best there is, as in perplexity, the logarithm is of what
    is lost against it: damages multiply, and the differences that matter are those near the dense model. What
    lies beyond the reference is drawn in, slope 1 at the reference and logarithmic beyond: a perplexity of a
    million counts as bad, keeps its rank, and leaves the fit to the models that matter. (The best quarter is
    never drawn in, for where all is beyond the reference there is still something to learn.)
    """

    log: bool
    edge: float
    """Where drawing in begins, after the logarithm."""
    width: float
    """The unit in which it is counted from there."""
    centre: float
    spread: float
    floor: float = 0.0
    """What is taken off before the logarithm."""

    @classmethod
    def of(cls, losses: Array, reference: float, dense: float = np.nan) -> Self:
        """Return the scale for losses (N,), finite ones; N at least 1. `dense` is the dense model's."""
        log, floor = _shape(losses, reference, dense)
        seen = np.log(losses - floor) if log else losses
        edge = float(np.log(reference - floor) if log else reference)
        edge = max(edge, float(np.quantile(seen, 0.25)))
        low, high = float(seen.min()), float(seen.max())
        width = max(edge - low, 0.01 * (high - low), 1e-9 * max(1.0, abs(edge)))
        drawn = _draw_in(seen, edge, width)
        spread = float(drawn.std())
        centre, unit = float(drawn.mean()), spread if spread > 1e-12 * width else 1.0
        return cls(log, edge, width, centre, unit, floor)

    def forward(self, losses: Array) -> Array:
        seen = np.log(losses - self.floor) if self.log else losses
        return (_draw_in(seen, self.edge, self.width) - self.centre) / self.spread

    def backward(self, outcomes: Array) -> Array:
        drawn = outcomes * self.spread + self.centre
        beyond = np.expm1(np.clip((drawn - self.edge) / self.width, 0.0, _FAR))
        seen = np.minimum(drawn, self.edge) + self.width * beyond
        return np.exp(np.minimum(seen, _LARGEST)) + self.floor if self.log else seen


def _shape(losses: Array, reference: float, dense: float) -> tuple[bool, float]:
    """Return whether a logarithm is taken, and what off before it: whatever leaves the least skew."""
    if losses.min() <= 0 or reference <= 0:
        return False, 0.0
    shapes = [(False, 0.0), (True, 0.0)]
    least = float(losses.min())
    typical = float(np.median(losses)) - least
    if typical > 0 and dense <= least + _AS_GOOD * typical:
        floor = min(dense, least) - _BELOW * typical
        if 0 < floor < reference:
            shapes.append((True, floor))
    return min(shapes, key=lambda shape: _skew(np.log(losses - shape[1]) if shape[0] else losses))


_AS_GOOD, _BELOW = 0.02, 0.05
"""How near to the best the dense model must be to count as the best there is, and how far below both the
floor lies, in units of what the median loses against the best."""

_FAR = 50.0
_LARGEST = 500.0
"""An exponent that is still finite in 64 bits, squares included."""


def _draw_in(seen: Array, edge: float, width: float) -> Array:
    beyond = np.maximum(seen - edge, 0.0) / width
    return cast(Array, np.minimum(seen, edge) + width * np.log1p(beyond))


def _skew(values: Array) -> float:
    """Return the absolute skewness; 0 for values that do not vary."""
    centred = values - values.mean()
    spread = float(np.sqrt((centred**2).mean()))
    return 0.0 if spread == 0 else abs(float((centred**3).mean())) / spread**3


def dense_losses(problem: Problem, history: Sequence[Trial]) -> Array:
    """Return the losses of the dense model in measures of quality, shape (M,); NaN for other objectives, and
    where it has none.

    Of quality alone: that a model is a tenth slower than the dense one does not make twice that a doubling,
    and what a timing lies above the dense model's is noise at first.
    """
    dense = dense_trial(history)
    found = np.full(len(problem.objectives), np.nan)
    if dense is not None:
        quality = [objective.about.useless is not None for objective in problem.objectives]
        found[quality] = problem.losses([dense])[0][quality]
    return found


def box(problem: Problem, history: Sequence[Trial]) -> Frame:
    """Return the box in which candidates are judged: the study's own where it has one.

    Until anchors and limits fix that, a side without a limit ends a tenth beyond the worst value on
    the front so far.

    Raises:
        NoModel: no trial has a value for an objective.
    """
    frame = problem.frame(history)
    if frame is not None:
        return frame
    losses = problem.losses([t for t in history if t.state in (TrialState.COMPLETED, TrialState.STOPPED)])
    front = losses[nondominated(losses)]
    ideal, reference = [], []
    columns = zip(problem.objectives, losses.T, front.T, problem.bounds(history), strict=True)
    for objective, column, on_front, bound in columns:
        known = column[np.isfinite(column)]
        if len(known) == 0:
            raise NoModel(f"no trial has a value for {objective.metric}")
        best = float(known.min())
        worst = float((on_front if len(on_front) else known).max())
        margin = 0.1 * (worst - best) or 0.1 * abs(worst) or 0.1
        reference.append(min(worst + margin, float(bound)))
        ideal.append(min(best, reference[-1] - margin))
    return Frame(tuple(ideal), tuple(reference))
