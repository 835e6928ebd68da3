"""Begin where earlier studies ended: what they let one expect joins what is known of a candidate.

At the seam, so that no sampler knows of it: a problem is handed on with more features and better guesses. A
feature is a column of a model's inputs like any other, with a length scale of its own, so that a new study
unlearns what does not hold for it. What its trials contradict is left out altogether.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpo.problem import Preview, Problem
from hpo.search.botorch_import import importing_botorch
from hpo.search.earlier import EarlierStudy
from hpo.search.history import start_left
from hpo.search.outcomes import NoModel
from hpo.search.pool import Pool, previewed
from hpo.search.sampler import Modelling, Preparing, Sampler
from hpo.search.start import opening
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

if TYPE_CHECKING:
    from hpo.search.expectation import Expectation

Array = NDArray[np.float64]

_WITNESSES = 5
"""Completed trials of the new study below which its earlier ones are taken at their word."""
_AGREEMENT = 0.3
"""Least rank correlation of what was expected with what was measured for an expectation to be kept."""


@dataclass(frozen=True)
class WarmStart:
    """A problem and the earlier studies that a search of it may learn from."""

    problem: Problem
    earlier: tuple[EarlierStudy, ...]

    @cached_property
    def expectations(self) -> "tuple[Expectation, ...]":
        """One for each earlier study and each measured objective that it knows; fitted when first wanted."""
        with importing_botorch():
            from hpo.search.expectation import Expectation
            from hpo.search.process import reproducible
        found = []
        for study in self.earlier:
            for metric in study.measured(self.problem):
                try:
                    with reproducible(0):
                        found.append(Expectation.of(self.problem, study, metric))
                except NoModel:
                    continue
        return tuple(found)

    def believed(self, history: Sequence[Trial]) -> "tuple[Expectation, ...]":
        """Return the expectations that the completed trials of a history do not contradict.

        An expectation is believed until there are five such trials, and then as long as the rank correlation
        (Spearman 1904) of what was expected of them with what they came to is at least 0.3.
        """
        completed = [trial for trial in history if trial.state is TrialState.COMPLETED]
        trials, pool = previewed(self.problem, completed)
        losses = self.problem.losses(trials)
        metrics = [objective.metric for objective in self.problem.objectives]
        return tuple(
            e for e in self.expectations if _agree(e.shares(pool), losses[:, metrics.index(e.metric)])
        )

    def informed(self, history: Sequence[Trial]) -> Problem:
        """Return the problem with what earlier studies let one expect; as it is where they are not believed.

        Each believed expectation is a feature more. Guesses, with which a search begins, are the expectations
        of each objective, the mean over studies; they replace the problem's own where none is missing.
        """
        believed = self.believed(history)
        if not believed:
            return self.problem
        metrics = list(dict.fromkeys(e.metric for e in believed))
        whole = len(metrics) + len(self.problem.exact) == len(self.problem.objectives)

        def preview(candidates: Sequence[Candidate]) -> Preview:
            plain = self.problem.preview(candidates)
            columns = self._columns(believed, candidates)
            found = [columns[:, [e.metric == m for e in believed]].mean(axis=1) for m in metrics]
            own = [] if whole or plain.guesses is None else [plain.guesses]
            return replace(
                plain, features=np.hstack([plain.features, columns]), guesses=np.column_stack([*own, *found])
            )

        return replace(self.problem, preview=preview)

    def _columns(self, believed: "Sequence[Expectation]", candidates: Sequence[Candidate]) -> Array:
        """Return what is expected of candidates, (N, number believed); NaN for those that are refused."""
        found = np.full((len(candidates), len(believed)), np.nan)
        pool = Pool.of(self.problem, candidates)
        planned = frozenset(pool.candidates)
        if len(pool):
            found[[candidate in planned for candidate in candidates]] = np.column_stack(
                [e.shares(pool) for e in believed]
            )
        return found


@dataclass
class WarmSampler:
    """Any sampler, told what earlier studies let one expect.

    The search begins as `hpo.search.start` says, whatever the sampler, but with promising candidates alone;
    after that the sampler is asked about the informed problem. Where no expectation is believed it is as if
    there had been no earlier study.
    """

    sampler: Sampler
    warm: WarmStart
    initial: int
    """Candidates to begin with."""

    def __post_init__(self) -> None:
        self.summary = self.sampler.summary

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        """Return what the sampler protocol says. `problem` must be the one that the warm start is of."""
        informed = self.warm.informed(history)
        if informed is self.warm.problem:
            return self.sampler.ask(problem, history, count, seed)
        left = start_left(history, self.initial, count)
        start = opening(informed, history, left, seed, turn=1)
        if len(start) == count:
            return start
        plans = informed.preview(start).plans
        pending = [
            Trial(len(history) + i, candidate, "start", plan)
            for i, (candidate, plan) in enumerate(zip(start, plans, strict=True))
        ]
        return start + self.sampler.ask(informed, [*history, *pending], count - len(start), seed)

    def prepare(self) -> None:
        """Let the sampler prepare itself."""
        if isinstance(self.sampler, Preparing):
            self.sampler.prepare()

    def skills(self, problem: Problem, history: Sequence[Trial], seed: int) -> list[Skill]:
        """Return how good the sampler's model is, of what it is told here; nothing if it has none."""
        informed = self.warm.informed(history)
        return self.sampler.skills(informed, history, seed) if isinstance(self.sampler, Modelling) else []


def _agree(expected_N: Array, losses_N: Array) -> bool:
    known = np.isfinite(expected_N) & np.isfinite(losses_N)
    if known.sum() < _WITNESSES:
        return True
    return rank_correlation(expected_N[known], losses_N[known]) >= _AGREEMENT


def rank_correlation(a_N: Array, b_N: Array) -> float:
    """Return Spearman's rank correlation, ties sharing their mean rank; 0 where one does not vary."""
    ranks = [_ranks(values) - (len(values) - 1) / 2 for values in (a_N, b_N)]
    size = float(np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1]))
    return float(ranks[0] @ ranks[1]) / size if size > 0 else 0.0


def _ranks(values_N: Array) -> Array:
    _, places, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: Array = (ends - counts + ends - 1) / 2
    return means[places]
