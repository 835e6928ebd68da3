"""What becomes of completed trials when a study goes on under other terms: on another device, or with other
objectives.

What a trial has measured under other terms is left out of it (its earlier attempt keeps it), and those that
decide the front are measured again, for what they lack only: the anchors, which span the comparison box, the
members of the front so far, and whatever nothing beats in the objectives that all of them have. The others
stay as they are; they teach the search what they know, and are on no front until they are measured.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.pareto import nondominated
from hpo.problem import losses
from hpo.run.terms import Terms
from hpo.trial import Measurement, Trial, TrialState


@dataclass(frozen=True)
class Review:
    """Completed trials as they were, each with the measurements that still count."""

    reopened: tuple[tuple[Trial, tuple[Measurement, ...]], ...]
    """To be measured again."""
    revised: tuple[tuple[Trial, tuple[Measurement, ...]], ...]
    """Of which something else counts now, and which are not measured again."""

    @property
    def is_empty(self) -> bool:
        return not self.reopened and not self.revised


def review(
    trials: Sequence[Trial], terms: Terms, front: Collection[int], on_device: Callable[[], Sequence[Trial]]
) -> Review:
    """Return what becomes of a study's completed trials under new terms.

    Args:
        front: numbers of the members of the latest front.
        on_device: returns the trials with what they once came to on the device of now; called where any
            lacks something. A study that comes back to a device need not measure again there.
    """
    done = [trial for trial in trials if trial.state is TrialState.COMPLETED]
    lacking = [trial for trial in done if terms.missing(trial)]
    if not lacking:
        return Review((), ())
    once = {trial.number: trial for trial in on_device()}
    wanted = {*front, *_unbeaten(done, terms)}
    reopened, revised = [], []
    for trial in lacking:
        missing = terms.missing(trial)
        found = [m for m in terms.holding(once.get(trial.number, trial)) if m.metric in missing]
        left = (*terms.holding(trial), *found)
        decides = trial.number in wanted or trial.origin.startswith("anchor")
        if decides and set(missing) > {m.metric for m in found}:
            reopened.append((trial, left))
        elif left != trial.measurements:
            revised.append((trial, left))
    return Review(tuple(reopened), tuple(revised))


def _unbeaten(done: Sequence[Trial], terms: Terms) -> list[int]:
    """Return the numbers of those that nothing beats in the objectives that all of them have."""
    missing = {name for trial in done for name in terms.missing(trial)}
    shared = [objective for objective in terms.objectives if objective.metric not in missing]
    if not shared:
        return []
    values = losses(shared, done)
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    return [done[row].number for row in rows[nondominated(values[rows])]]
