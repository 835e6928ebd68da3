"""What the events of a study say of its workers and trials do not: attempts that were lost, signs of life,
and when the study was running at all."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock
from weakref import WeakKeyDictionary

from dashboards.source import StudySource
from hpo.store.store import Store
from hpo.store.values import Event, EventKind, StudyState

_CHUNK = 5000
"""Events that are read at once."""

_NOT_SAID = "not said"


@dataclass(frozen=True)
class LostAttempt:
    """An attempt at a trial that came to no end. Times are in seconds since the epoch, like everywhere."""

    worker: str
    trial: int
    attempt: int
    start: float
    end: float
    why: str
    crashed: bool
    """Its worker was lost; else the study was stopped, or its coordinator was."""


@dataclass
class WorkerLog:
    """The events of a study as far as they were read, folded; reading on costs what is new."""

    newest: int = 0
    """The last event that was read."""
    last_at: float = 0.0
    """When a trial, or the study as a whole, last moved on."""
    lost: list[LostAttempt] = field(default_factory=list)
    signs: dict[str, float] = field(default_factory=dict)
    """Worker -> when it was last heard of."""
    periods: list[tuple[float, float | None]] = field(default_factory=list)
    """From when to when the study was running; the last may have no end yet."""
    _begun: dict[int, tuple[int, str, float]] = field(default_factory=dict)
    """Trial -> attempt, worker and start of what is under way."""

    def add(self, events: Iterable[Event]) -> None:
        """Take in events that are newer than all before."""
        for event in events:
            if event.kind is EventKind.STATE:
                self._turn(str(event.payload.get("state", "")), event.at)
            elif event.trial is not None:
                self._of_trial(event, event.trial)
            if event.trial is not None or event.kind is EventKind.STATE:
                self.last_at = max(self.last_at, event.at)
            self.newest = event.id

    def _turn(self, state: str, at: float) -> None:
        runs = bool(self.periods) and self.periods[-1][1] is None
        if runs:  # if it is to run again, then it had died without a word, after the last event
            begin = self.periods[-1][0]
            self.periods[-1] = (begin, max(begin, self.last_at) if state == StudyState.RUNNING else at)
        if state == StudyState.RUNNING:
            self.periods.append((at, None))

    def _ended(self, start: float, at: float) -> float:
        """Return when the run of the study ended in which something began at `start`; `at` if it has not."""
        ends = (end for begin, end in self.periods if end is not None and begin <= start <= end)
        return next(ends, at)

    def _of_trial(self, event: Event, trial: int) -> None:
        if event.kind is EventKind.STARTED and "worker" in event.payload:
            self._begun[trial] = (event.attempt or 1, str(event.payload["worker"]), event.at)
        begun = self._begun.get(trial)
        if begun is None:
            return
        attempt, worker, start = begun
        if event.kind in (EventKind.LOST, EventKind.REQUEUED):
            why = str(event.payload.get("why", "")) or _NOT_SAID
            crashed = event.kind is EventKind.LOST
            # Without the seconds it is said by a coordinator that has taken over, long after.
            known = crashed or event.payload.get("seconds") is not None
            end = event.at if known else self._ended(start, event.at)
            self.lost.append(LostAttempt(worker, trial, attempt, start, max(start, end), why, crashed))
            del self._begun[trial]
        elif event.kind in _LIFE:
            self.signs[worker] = max(self.signs.get(worker, 0.0), event.at)
            if event.kind in _OVER:
                del self._begun[trial]


_OVER = (EventKind.COMPLETED, EventKind.STOPPED, EventKind.FAILED)
_LIFE = (EventKind.STARTED, EventKind.STAGE_DONE, *_OVER)
"""What a worker must have done something for."""


class WorkerLogs:
    """The logs of the studies of one store. Threads may share it."""

    def __init__(self) -> None:
        self._logs: dict[str, tuple[float, WorkerLog]] = {}
        self._lock = Lock()

    def read(self, store: Store, name: str, created_at: float) -> WorkerLog:
        """Return the log of a study that was created then, brought up to date.

        Raises:
            NotFound: there is no such study.
            StoreError: the store cannot be read.
        """
        with self._lock:
            made, log = self._logs.get(name, (created_at, WorkerLog()))
            if made != created_at:  # another study of the same name
                log = WorkerLog()
            while events := store.events(name, log.newest, _CHUNK):
                log.add(events)
                if len(events) < _CHUNK:
                    break
            self._logs[name] = (created_at, log)
            return log


_OF_SOURCE: WeakKeyDictionary[StudySource, WorkerLogs] = WeakKeyDictionary()


def logs_of(source: StudySource) -> WorkerLogs:
    """Return the logs of a source's studies; they go with it."""
    return _OF_SOURCE.setdefault(source, WorkerLogs())
