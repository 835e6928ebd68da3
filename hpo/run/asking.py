"""What to try next: anchors, then what the study's file gives, then the sampler; never one plan twice."""

import logging

from hpo import registry
from hpo.problem import Problem
from hpo.run.anchors import opening
from hpo.run.ledger import Ledger
from hpo.search.sampler import Sampler
from hpo.space import Candidate
from hpo.study import Search

_log = logging.getLogger(__name__)

Proposal = tuple[str, Candidate, str]
"""Origin, candidate, plan hash."""


class Asker:
    """Proposes candidates for a study. Holds nothing that the study's rows do not."""

    def __init__(self, problem: Problem, search: Search) -> None:
        self._problem, self._name, self._seed = problem, search.sampler, search.seed
        self._sampler: Sampler = registry.load("sampler", search.sampler)(initial=search.initial)
        self._given = [problem.space.candidate(values) for values in search.first]
        self._opening: list[Proposal] | None = None

    def ask(self, ledger: Ledger, count: int) -> list[Proposal]:
        """Return up to `count` new proposals; fewer only if the space holds no more plans."""
        trials = ledger.trials
        if self._opening is None:
            self._opening = list(opening(self._problem, self._given, trials))
        proposals, self._opening = self._opening[:count], self._opening[count:]
        if proposals:
            return proposals
        return self._sampled(ledger, count)

    def _sampled(self, ledger: Ledger, count: int) -> list[Proposal]:
        trials = ledger.trials
        candidates = self._sampler.ask(self._problem, trials, count, self._seed)
        preview = self._problem.preview(candidates)
        taken = {trial.plan_hash for trial in trials}
        proposals = []
        for candidate, plan in zip(candidates, preview.plans, strict=True):
            if not plan or plan in taken:
                _log.warning(
                    "the sampler %s proposed a plan that is refused or known: %s", self._name, candidate
                )
                continue
            taken.add(plan)
            proposals.append((self._name, candidate, plan))
        return proposals
