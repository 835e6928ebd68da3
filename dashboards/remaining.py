"""What is left of a study's budget, in words and on the axes of its hypervolume."""

from dataclasses import dataclass

from dashboards.hypervolume import Against, HypervolumeCurve
from hpo.budget import Budget
from hpo.format import duration_text, number_text
from hpo.store.spending import Spent


@dataclass(frozen=True)
class Remaining:
    """What is left of each budget that is given; None where it is not given, 0 where it is used up."""

    budget: Budget
    trials: int | None
    """Not finished yet, those that run included."""
    seconds: float | None
    """Of the coordinator, by the clock on the wall."""
    gpu_hours: float | None
    joules: float | None

    def end(self, curve: HypervolumeCurve, against: Against) -> float | None:
        """Return where on an axis of `curve` the budget that it shows ends; None where it shows none."""
        left = {"trials": self.trials, "seconds": self.seconds, "hours": self.gpu_hours}[against]
        along = curve.along(against)
        return None if left is None or not along else along[-1] + left

    @property
    def words(self) -> str:
        """What is left, as a sentence."""
        of = self.budget
        said = []
        if self.trials is not None:
            said.append(f"{self.trials:,} of {of.trials:,} trials")
        if self.seconds is not None:
            whole = duration_text(3600 * (of.hours or 0.0))
            said.append(f"{duration_text(self.seconds)} of {whole} by the clock")
        if self.gpu_hours is not None:
            said.append(f"{number_text(self.gpu_hours, 3)} of {of.gpu_hours:,.10g} GPU-hours")
        if self.joules is not None:
            said.append(f"{number_text(self.joules, 3)} of {of.joules:,.10g} J")
        return f"Left of the budget: {', '.join(said)}."


def remaining_of(budget: Budget, spent: Spent, finished: int) -> Remaining:
    """Return what is left of `budget` when so many trials are over and so much is spent."""
    seconds = _left(budget.hours, spent.hours)
    return Remaining(
        budget=budget,
        trials=None if budget.trials is None else max(budget.trials - finished, 0),
        seconds=None if seconds is None else 3600 * seconds,
        gpu_hours=_left(budget.gpu_hours, spent.gpu_hours),
        joules=_left(budget.joules, spent.work.joules),
    )


def _left(of: float | None, spent: float) -> float | None:
    return None if of is None else max(of - spent, 0.0)
