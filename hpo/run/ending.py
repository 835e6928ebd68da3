"""Why a study begins no further trial: a budget of time or energy is used up, or its front has levelled."""

from collections.abc import Sequence

from hpo.run.ledger import Ledger
from hpo.search.plateau import Growth, growth, progress_of
from hpo.store.spending import Spent, blind, gpus_of
from hpo.study import Study
from hpo.trial import Trial


class Ending:
    """Judges a study by its ledger. A resumed one is judged by all that it has ever spent and gained."""

    def __init__(self, study: Study, device: str, hours_before: float, ledger: Ledger) -> None:
        """`device`: the fingerprint of the workers' device; `hours_before`: what earlier runs took."""
        self._study, self._hours_before, self._ledger = study, hours_before, ledger
        self._gpus = gpus_of(device, study.run.gpus_per_worker)
        self._at_first, self._work_at_first = ledger.final, ledger.work
        self._judged = -1
        self._growth: Growth | None = None

    def over(self, hours: float) -> str:
        """Return why no further trial is begun, else nothing; `hours` is how long this run has taken."""
        return self._spent(hours).used_up(self._study.budget) or self._levelled()

    def used(self, hours: float) -> float:
        """Return the largest share used of any budget of time or energy; `hours` as for `over`."""
        uses = self._spent(hours).uses(self._study.budget)
        return max((use.share for use in uses if use.unit != "trials"), default=0.0)

    def blind(self) -> str:
        """Return why the budget can never be used up, as far as this run has shown, if it cannot."""
        return blind(self._study.budget, self._ledger.work - self._work_at_first)

    def _spent(self, hours: float) -> Spent:
        return Spent(len(self._ledger), self._hours_before + hours, self._ledger.work, self._gpus)

    def _levelled(self) -> str:
        rule = self._study.search.plateau
        if rule is None:
            return ""
        if self._judged != self._ledger.final:  # nothing changes between two trials
            self._judged = self._ledger.final
            self._growth = growth_of(self._study, self._ledger.trials, self._gpus)
        if self._growth is None or self._growth.bound >= rule.gain_per_hour:
            return ""
        found = self._growth.words(rule.gain_per_hour, on_gpu=self._gpus > 0)
        if self._ledger.final > self._at_first:
            return found
        return f"the plateau still holds and no trial was added (--no-plateau goes on without it): {found}"


def growth_of(study: Study, trials: Sequence[Trial], gpus: float) -> Growth | None:
    """Return how fast the study's front grows by its plateau rule; None without a rule, or too early to tell.

    An hour is one of worker time, or with `gpus` a worker above 0 a GPU-hour.
    """
    rule = study.search.plateau
    if rule is None:
        return None
    progress = progress_of(study.objectives, trials, study.search.initial, gpus or 1.0)
    return None if progress is None else growth(progress, rule.trials, rule.confidence)
