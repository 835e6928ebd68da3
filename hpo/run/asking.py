"""What to try next: anchors, then what the study's file gives, then the sampler, and in the end moves around
the front where the study asks for them; never one plan twice."""

import logging
from collections.abc import Sequence

from hpo import registry
from hpo.problem import Problem
from hpo.run.anchors import opening
from hpo.run.phases import Phases
from hpo.search.history import start_left
from hpo.search.refining import refined
from hpo.search.sampler import Modelling, Preparing, Sampler
from hpo.search.warm_start import WarmSampler, WarmStart
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.study import Search
from hpo.trial import Trial, TrialState

_log = logging.getLogger(__name__)

_AGED = 1.1
"""Growth of a study at which the sampler's model is judged again."""

Proposal = tuple[str, Candidate, str]
"""Origin, candidate, plan hash."""


class Asker:
    """Proposes candidates for a study. Holds nothing that the study's rows do not."""

    def __init__(
        self, problem: Problem, search: Search, warm: WarmStart | None = None, phases: Phases | None = None
    ) -> None:
        self._problem, self._name, self._seed = problem, search.sampler, search.seed
        self._initial, self._phases = search.initial, phases
        sampler: Sampler = registry.load("sampler", search.sampler)(initial=search.initial)
        self._sampler = sampler if warm is None else WarmSampler(sampler, warm, search.initial)
        self._given = [problem.space.candidate(values) for values in search.first]
        self._opening: list[Proposal] | None = None
        self._examined = 0
        self.skills: tuple[Skill, ...] = ()
        """Of the sampler's model, if it has one; judged anew when a tenth more trials are completed."""

    def ask(self, trials: Sequence[Trial], count: int) -> list[Proposal]:
        """Return up to `count` new proposals; fewer only if the opening ends or no more plans are left.

        `trials` are all of the study, by number, and behind them what is proposed but not yet in it.
        """
        if self._opening is None:
            self._opening = list(opening(self._problem, self._given, trials))
        proposals, self._opening = self._opening[:count], self._opening[count:]
        if proposals:
            return proposals
        return self._sampled(trials, count) if self._phases is None else self._phased(trials, count)

    @property
    def prepares(self) -> bool:
        """Whether the sampler's first question takes longer unless it is prepared."""
        return isinstance(self._sampler, Preparing)

    def prepare(self) -> None:
        """Let the sampler do beforehand what it does once a process."""
        if isinstance(self._sampler, Preparing):
            self._sampler.prepare()

    def is_start(self, trials: Sequence[Trial]) -> bool:
        """Whether the next candidate is one of those that a sampler proposes before it models anything."""
        return start_left(trials, self._initial, 1) > 0

    def _phased(self, trials: Sequence[Trial], count: int) -> list[Proposal]:
        """Return the sampler's proposals, then moves; of either more where the other has none."""
        assert self._phases is not None
        left = self._phases.sampled(len(trials))
        proposals = self._sampled(trials, int(min(count, left))) if left else []
        if len(proposals) < count and self._phases.study.search.refine:
            known = [*trials, *pending(proposals, len(trials))]
            proposals += refined(self._problem, known, count - len(proposals), self._seed)
        if len(proposals) < count and not left:
            proposals += self._sampled([*trials, *pending(proposals, len(trials))], count - len(proposals))
        return proposals

    def _sampled(self, trials: Sequence[Trial], count: int) -> list[Proposal]:
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
        self._examine(trials)
        return proposals

    def _examine(self, trials: Sequence[Trial]) -> None:
        """Judge the sampler's model, while what it has fitted for its proposals is still at hand."""
        completed = sum(trial.state is TrialState.COMPLETED for trial in trials)
        if completed < _AGED * self._examined or self.is_start(trials):
            return
        if isinstance(self._sampler, Modelling):
            self._examined = completed
            self.skills = tuple(self._sampler.skills(self._problem, trials, self._seed))


def pending(proposals: Sequence[Proposal], known: int) -> list[Trial]:
    """Return proposals as the trials that they will be, behind so many known ones."""
    return [Trial(known + i, candidate, o, plan) for i, (o, candidate, plan) in enumerate(proposals)]
