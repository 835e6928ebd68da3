"""Points drawn uniformly and independently: what any search has to beat."""

import numpy as np

from hpo.problem import Problem
from hpo.space import Candidate
from hpo.trial import Trial


class Uniform:
    """Learns nothing, not even what it drew before."""

    def __init__(self, problem: Problem, seed: int, initial: int) -> None:
        self._space = problem.space
        self._rng = np.random.default_rng(seed)

    def ask(self) -> Candidate:
        return self._space.from_unit(self._rng.random(len(self._space)).tolist())

    def tell(self, trial: Trial) -> None:
        pass
