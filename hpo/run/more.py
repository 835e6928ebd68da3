"""What a study is resumed with: larger budgets, or without its plateau rule."""

from dataclasses import dataclass

from hpo.budget import Budget
from hpo.errors import UsageError
from hpo.store.values import StudyRecord, StudyState
from hpo.study import Study


@dataclass(frozen=True)
class More:
    """What a study is resumed with: new budgets, what is spent already included; None keeps the old one."""

    trials: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    joules: float | None = None
    without_plateau: bool = False
    """Drop the plateau rule."""
    remeasure: bool = False
    """Go on with what is finished, if only to measure on another device what decides its front."""
    allow_drift: bool = False
    """Go on though the model, the texts or versions are not what they were."""

    @property
    def budgets(self) -> dict[str, float]:
        """The budgets that are given, by the name of their key."""
        every = {
            "trials": self.trials,
            "hours": self.hours,
            "gpu_hours": self.gpu_hours,
            "joules": self.joules,
        }
        return {key: value for key, value in every.items() if value is not None}


def amended(record: StudyRecord, more: More) -> Study:
    """Return a stored study with what it is resumed with.

    Raises:
        UsageError: it is finished and nothing is given that lets it go on, or a budget shrinks.
    """
    study, given = record.study, more.budgets
    budget, rule = study.budget, study.search.plateau
    known = {key: getattr(budget, key) for key in given}
    for key, value in given.items():
        if known[key] is not None and value < known[key]:
            raise UsageError(
                f"{_flag(key)} {value:g} is below the budget of {known[key]:g}",
                "the budget counts all that is spent, earlier runs included",
            )
    grown = any(value != known[key] for key, value in given.items())
    drops = more.without_plateau and rule is not None
    if record.state is StudyState.FINISHED and not grown and not drops and not more.remeasure:
        if given:
            raise UsageError(
                f"study {study.name!r} is finished within just that budget, {budget}: {record.message}",
                f"give a larger {' or '.join(map(_flag, given))}",
            )
        without = "" if rule is None else ", or go on without its plateau rule: --no-plateau"
        raise UsageError(
            f"study {study.name!r} is finished: {record.message}",
            f"give it more with: hpo resume {study.name} {_more_of(budget)} (now {budget}){without}",
        )
    search = study.search.model_copy(update={"plateau": None}) if drops else study.search
    changed = {"budget": Budget.model_validate(budget.model_dump() | given), "search": search}
    return Study.model_validate({**dict(study), **changed})


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def _more_of(budget: Budget) -> str:
    return " ".join(f"{_flag(key)} N" for key, value in budget if value is not None)
