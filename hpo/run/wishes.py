"""Trials that a person asks for while a study runs: granted like any other, or refused with a reason."""

from collections.abc import Sequence

from hpo.errors import HpoError
from hpo.problem import Problem
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import Wish
from hpo.trial import Trial, TrialState


class Wishes:
    """The wishes of one study that have no answer yet, each handed out once."""

    def __init__(self, store: Store, study: str) -> None:
        self._store, self._study = store, study
        self._answered: frozenset[int] | None = None
        self._seen = 0

    def new(self) -> list[Wish]:
        """Return those that have come up since the last look; the first one finds what was left before."""
        found, self._seen = self._store.wishes(self._study, self._seen)
        if found and self._answered is None:
            self._answered = self._store.answered(self._study)
        return [wish for wish in found if wish.id not in (self._answered or ())]


def plan_of_wish(problem: Problem, trials: Sequence[Trial], wish: Wish) -> tuple[Candidate, str]:
    """Return the candidate of a wish and its plan's hash.

    What was tried may be tried again only if it failed: the same plan comes to the same figures.

    Raises:
        HpoError: it is outside the space, has no plan, or is known already.
    """
    outside = wish.candidate.is_dense or any(t.candidate == wish.candidate for t in trials)
    candidate = wish.candidate if outside else problem.space.candidate(wish.candidate.values)
    preview = problem.preview([candidate])
    plan = preview.plans[0]
    if not plan:
        raise HpoError(f"{candidate} has no plan: {preview.refusals[0]}")
    for trial in trials:
        if trial.plan_hash == plan and trial.state is not TrialState.FAILED:
            raise HpoError(f"trial {trial.number} has the same plan and is {trial.state}")
    return candidate, plan
