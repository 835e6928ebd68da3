"""When a search goes over from looking everywhere to refining what it has found."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from hpo.study import Study


@dataclass(frozen=True)
class Phases:
    """Tells, by the budget, which of the next trials are the sampler's.

    A budget of trials gives the same answer whenever it is asked. Time and energy are read off the clock and
    the counters, so that a study resumed under them refines what is left to refine.
    """

    study: Study
    used: Callable[[], float]
    """The largest share used of any budget of time or energy."""

    def sampled(self, trials: int) -> float:
        """Return how many trials the sampler may propose after so many; inf for any number."""
        share, budget = self.study.search.refine, self.study.budget
        if not share:
            return math.inf
        if self.used() >= 1 - share:
            return 0.0
        last = math.inf if budget.trials is None else math.ceil((1 - share) * budget.trials - 1e-9)
        return max(last - trials, 0.0)
