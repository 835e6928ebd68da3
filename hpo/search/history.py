"""What every sampler reads from a history."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.trial import Cause, Trial, TrialState

Array = NDArray[np.float64]

_ACCIDENTS = frozenset({Cause.LOST_WORKER, Cause.CANCELLED})


def blames_candidate(trial: Trial) -> bool:
    """Whether a trial failed for what it tried, rather than by an accident of the machine it ran on."""
    return trial.state is TrialState.FAILED and trial.cause not in _ACCIDENTS


def start_left(history: Sequence[Trial], initial: int, count: int) -> int:
    """Return how many of the next `count` candidates belong to the quasi-random start of a search."""
    asked = sum(not trial.origin.startswith("anchor") for trial in history)
    return min(max(initial - asked, 0), count)


def excess(losses: Array, bounds: Array) -> Array:
    """Return by how much losses (..., M) exceed bounds (M,), in shares of the bound; -inf without one."""
    found = np.full(losses.shape, -np.inf)
    limited = np.isfinite(bounds)
    size = np.abs(bounds[limited])
    found[..., limited] = (losses[..., limited] - bounds[limited]) / np.where(size > 0, size, 1.0)
    return found
