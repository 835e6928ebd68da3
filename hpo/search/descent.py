"""Which trial was moved from which: the trials that refine a front, by families.

The origin of such a trial names its parent, ``refine:12``. A family is a trial of the search proper with all
that descends from it.
"""

from collections.abc import Sequence
from functools import cached_property

from hpo.problem import on_front
from hpo.trial import Objective, Trial, TrialState

_MOVED = "refine:"


def origin(parent: int) -> str:
    """Return the origin of a trial that is moved from another one, which has this number."""
    return f"{_MOVED}{parent}"


def parent(trial: Trial) -> int | None:
    """Return the number of the trial that one was moved from; None for one of the search proper."""
    number = trial.origin.removeprefix(_MOVED)
    return int(number) if trial.origin.startswith(_MOVED) and number.isdecimal() else None


class Descent:
    """The families of a history, and how far their members are from the dense model at first sight."""

    def __init__(
        self, objectives: Sequence[Objective], history: Sequence[Trial], tiers: Sequence[str]
    ) -> None:
        """`tiers`: the notes that trials show, as of `Problem.tiers`; they are compared by the first."""
        self._objectives, self._history = objectives, history
        self.tier = tiers[0] if tiers else ""

    @cached_property
    def _by_number(self) -> dict[int, Trial]:
        return {trial.number: trial for trial in self._history}

    @cached_property
    def front(self) -> tuple[Trial, ...]:
        """The trials on the front."""
        mask = on_front(self._objectives, self._history)
        return tuple(trial for trial, kept in zip(self._history, mask, strict=True) if kept)

    def parent(self, trial: Trial) -> Trial | None:
        """Return the trial that one was moved from; None for one of the search proper."""
        number = parent(trial)
        return None if number is None else self._by_number.get(number)

    def look(self, trial: Trial) -> float | None:
        """Return the first thing that a trial showed, less is better; None if it has shown none."""
        found = trial.notes.get(self.tier)
        return found if isinstance(found, float) else None

    def measured(self, trial: Trial) -> Trial | None:
        """Return the trial, or the nearest one it descends from, that is completed."""
        found: Trial | None = trial
        while found is not None and found.state is not TrialState.COMPLETED:
            found = self.parent(found)
        return found

    def root(self, trial: Trial) -> int:
        """Return the number of the trial of the search proper that one descends from, or its own."""
        while (found := self.parent(trial)) is not None:
            trial = found
        return trial.number

    def improves(self, trial: Trial) -> bool:
        """Whether a moved trial looks better than the one it was moved from."""
        before = self.parent(trial)
        if before is None:
            return False
        mine, theirs = self.look(trial), self.look(before)
        return mine is not None and theirs is not None and mine < theirs
