"""Which studies of the store are shown, and in which order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hpo.errors import UsageError, did_you_mean
from hpo.store.values import StudyState, StudySummary

FINAL = ("completed", "stopped", "failed")
"""States of a trial that is over."""

_FIRST = (StudyState.RUNNING, StudyState.FAILED, StudyState.STOPPED, StudyState.CREATED, StudyState.FINISHED)
"""What wants to be looked at stands first."""


def done(summary: StudySummary) -> int:
    """Return how many trials are over."""
    return sum(summary.counts.get(state, 0) for state in FINAL)


def share_done(summary: StudySummary) -> float | None:
    """Return what is used of the budget nearest to its end, of those in trials and in hours; None without."""
    uses = ((done(summary), summary.budget_trials), (summary.hours, summary.budget_hours))
    return max((spent / of for spent, of in uses if of), default=None)


def _last_change(summary: StudySummary) -> tuple[float, str]:
    return -summary.updated_at, summary.name


def _name(summary: StudySummary) -> tuple[str, str]:
    return summary.name.casefold(), summary.name


def _state(summary: StudySummary) -> tuple[int, float]:
    return _FIRST.index(summary.state), -summary.updated_at


def _progress(summary: StudySummary) -> tuple[float, str]:
    share = share_done(summary)
    return (1.0 if share is None else -share), summary.name


def _hypervolume(summary: StudySummary) -> tuple[float, str]:
    return (1.0 if summary.hypervolume is None else -summary.hypervolume), summary.name


ORDERS: Mapping[str, Callable[[StudySummary], Any]] = MappingProxyType(
    {
        "last change": _last_change,
        "name": _name,
        "state": _state,
        "progress": _progress,
        "hypervolume": _hypervolume,
    }
)
"""What studies can be sorted by: the newest, the farthest, the largest first, and last what is not known."""


@dataclass(frozen=True)
class Choice:
    """What the reader of the list wants to see.

    Raises:
        UsageError: studies cannot be sorted so.
    """

    text: str = ""
    """In the name or the question, in capitals or not."""
    state: str = ""
    """Empty for all."""
    order: str = "last change"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            message = f"studies cannot be sorted by {self.order!r}"
            raise UsageError(message, did_you_mean(self.order, ORDERS))

    def of(self, summaries: Sequence[StudySummary]) -> list[StudySummary]:
        """Return those that are wanted, in order."""
        wanted = self.text.strip().casefold()
        found = [
            s
            for s in summaries
            if self.state in ("", s.state) and wanted in f"{s.name}\n{s.question}".casefold()
        ]
        return sorted(found, key=ORDERS[self.order])
