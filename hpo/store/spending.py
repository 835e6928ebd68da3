"""What a study has spent of its budget, computed from its record."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from hpo.budget import Budget
from hpo.format import count_text, number_text
from hpo.store.values import StudyRecord
from hpo.trial import StageTime, Trial

_BLIND_S = 60.0
"""Worker seconds without a joule counted after which a budget in joules is hopeless."""


@dataclass(frozen=True)
class Work:
    """What workers have done, summed over stages."""

    seconds: float = 0.0
    joules: float = 0.0
    """Of the stages that were counted."""
    stages: int = 0
    uncounted: int = 0
    """Stages among them without an energy reading."""

    @classmethod
    def of(cls, stages: Iterable[StageTime]) -> Self:
        done = list(stages)
        counted = [stage.joules for stage in done if stage.joules is not None]
        seconds = sum((stage.seconds for stage in done), start=0.0)
        return cls(seconds, sum(counted, start=0.0), len(done), len(done) - len(counted))

    @classmethod
    def of_trials(cls, trials: Sequence[Trial]) -> Self:
        """Return the work on the trials as they stand: that on earlier attempts is not theirs any more."""
        return cls.of(stage for trial in trials for stage in trial.stages)

    @classmethod
    def lost(cls, seconds: float) -> Self:
        """Return the work on a stage that came to no end; what energy it took nobody could read."""
        return cls(seconds, 0.0, 1, 1)

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.seconds + other.seconds,
            self.joules + other.joules,
            self.stages + other.stages,
            self.uncounted + other.uncounted,
        )

    def __sub__(self, other: "Work") -> "Work":
        return Work(
            self.seconds - other.seconds,
            self.joules - other.joules,
            self.stages - other.stages,
            self.uncounted - other.uncounted,
        )


class Use(NamedTuple):
    """One budget, and what is spent of it."""

    spent: float
    of: float
    unit: str

    @property
    def share(self) -> float:
        return self.spent / self.of

    def __str__(self) -> str:
        return f"{number_text(self.spent, 3)} of {number_text(self.of, 3)} {self.unit}"


@dataclass(frozen=True)
class Spent:
    """What a study has spent so far, resumes and lost attempts included."""

    trials: int
    """Asked, whatever has become of them."""
    hours: float
    """Of the coordinator, by the clock on the wall."""
    work: Work
    gpus: float
    """GPUs that a worker holds; 0 where trials run on the processor."""

    @property
    def gpu_hours(self) -> float:
        return self.work.seconds / 3600 * self.gpus

    def uses(self, budget: Budget) -> list[Use]:
        """Return what is spent of each budget that is given: trials, hours, GPU-hours, joules."""
        found = (
            (self.trials, budget.trials, "trials"),
            (self.hours, budget.hours, "h"),
            (self.gpu_hours, budget.gpu_hours, "GPU-hours"),
            (self.work.joules, budget.joules, "J"),
        )
        return [Use(spent, of, unit) for spent, of, unit in found if of is not None]

    def used_up(self, budget: Budget) -> str:
        """Return which budget of time or energy is used up and how, else nothing. Trials are not looked at:
        those that are asked may still run."""
        for use in self.uses(budget):
            if use.unit != "trials" and use.spent >= use.of:
                missing = self.uncounted if use.unit == "J" else ""
                return f"the budget of {_NAMES[use.unit]} is used: {use}{missing}"
        return ""

    def text(self, budget: Budget) -> str:
        """Return what is spent of the budget: ``12 of 60 trials, 0.3 of 2 h``."""
        missing = "" if budget.joules is None else self.uncounted
        return ", ".join(map(str, self.uses(budget))) + missing

    @property
    def uncounted(self) -> str:
        """What the joules leave out, in words; nothing where nothing is."""
        stages = count_text(self.work.uncounted, "stage")
        return f" (without {stages} that had no reading)" if self.work.uncounted else ""

    def to_mapping(self) -> dict[str, Any]:
        """Return it for programs; `joules` is None where nothing was counted."""
        counted = self.work.stages > self.work.uncounted
        return {
            "trials": self.trials,
            "hours": self.hours,
            "worker_hours": self.work.seconds / 3600,
            "gpu_hours": self.gpu_hours if self.gpus else None,
            "joules": self.work.joules if counted else None,
            "uncounted_stages": self.work.uncounted,
        }


def blind(budget: Budget, work: Work) -> str:
    """Return why `work` shows that a budget in joules can never be used up, if it does."""
    if budget.joules is None or work.joules > 0 or work.seconds < _BLIND_S:
        return ""
    why = "no stage could be read" if work.uncounted == work.stages else "the counter stands still"
    return (
        f"no joule was counted over {number_text(work.seconds, 3)} s of work ({why}): "
        "the budget of joules cannot be kept on these workers"
    )


_NAMES = {"h": "hours", "GPU-hours": "GPU-hours", "J": "joules"}


def gpus_of(device: str, gpus_per_worker: float) -> float:
    """Return how many GPUs a worker holds whose device has this fingerprint; 0 on a processor."""
    return gpus_per_worker if device.startswith("cuda") else 0.0


def spent_of(record: StudyRecord, trials: Sequence[Trial], lost: Work) -> Spent:
    """Return what a stored study has spent; `lost` is the work on attempts that its trials do not show."""
    return spent_by(record, len(trials), Work.of_trials(trials) + lost)


def spent_by(record: StudyRecord, trials: int, work: Work) -> Spent:
    """Return what a stored study has spent on so many trials by all of its work."""
    gpus = gpus_of(record.environment.get("device", ""), record.study.run.gpus_per_worker)
    return Spent(trials, record.hours, work, gpus)
