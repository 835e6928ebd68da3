"""Model-based search: where the front is expected to grow most."""

import logging
from collections.abc import Sequence

from hpo.problem import Problem
from hpo.search.botorch_import import importing_botorch
from hpo.search.history import start_left
from hpo.search.outcomes import NoModel
from hpo.search.sobol import spread
from hpo.search.start import opening
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.trial import Trial

_log = logging.getLogger(__name__)


class BayesianSampler:
    """Noisy expected hypervolume improvement (Daulton et al. 2021) under Gaussian processes.

    Objectives that follow from the plan are functions in it, not models; the others are learnt from a
    candidate's values, its plan's features and its exact costs. Where trials fail is learnt too. A batch
    is chosen one by one, each candidate as if those before it, and all trials under way, were running.
    """

    summary = "Gaussian processes and expected hypervolume improvement: fewest trials, about a second each"

    def __init__(self, initial: int = 8) -> None:
        self.initial = initial

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        start = opening(problem, history, start_left(history, self.initial, count), seed)
        if len(start) == count:
            return start
        with importing_botorch():
            from hpo.search.modelled import propose
        try:
            return propose(problem, history, start, count, seed)
        except NoModel as reason:
            _log.warning("no model yet, %s; the next candidates are quasi-random", reason)
            return spread(problem, history, count, seed)

    def prepare(self) -> None:
        """Import BoTorch, and have it fit once: its first fit takes several times as long as the next."""
        with importing_botorch():
            from hpo.search.process import rehearse
        rehearse()

    def skills(self, problem: Problem, history: Sequence[Trial], seed: int) -> list[Skill]:
        """Return how well the model foretells each trial from the others; nothing where there is none yet."""
        with importing_botorch():
            from hpo.search.examination import examined
        try:
            return examined(problem, history, seed)
        except NoModel:
            return []
