"""Where the pages get their studies from: a store, opened when first needed, and only ever read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

from hpo.skill import Skill
from hpo.store.spending import Spent, Work, spent_by, spent_of
from hpo.store.store import Store
from hpo.store.values import Front, StudyRecord
from hpo.trial import LayerRecord, Trial

Kept = TypeVar("Kept")

_KEPT = 64
"""Figures and the like that are kept for the next reader."""


@dataclass(frozen=True)
class Snapshot:
    """A study as it stands: enough for every figure and table of it."""

    record: StudyRecord
    trials: tuple[Trial, ...]
    """In order of number."""
    newest: int
    """The newest event that is contained; grows with every change of a trial."""
    spent: Spent
    """Of the study's budget, lost attempts included."""
    skills: tuple[Skill, ...] = ()
    """How good the search's model was when it was last judged."""
    front: Front | None = None
    """The front as the coordinator last stored it."""

    @property
    def revision(self) -> str:
        """Differs whenever the trials do, also after a study was deleted and made again."""
        return f"{self.record.created_at}:{self.newest}"


def read(store: Store, name: str) -> Snapshot:
    """Return a study of a store as it stands.

    Raises:
        NotFound: there is no such study.
        StoreError: the store cannot be read.
    """
    trials, newest = store.trials_since(name, 0)
    record = store.study(name)
    spent = spent_of(record, trials, store.lost_work(name))
    return Snapshot(record, trials, newest, spent, store.skills(name), store.front(name))


@dataclass
class _Watched:
    """A study as far as it has been read; a look at it costs what has changed since the last one."""

    created_at: float
    trials: dict[int, Trial] = field(default_factory=dict)
    changed: dict[int, int] = field(default_factory=dict)
    """Number -> the newest event that was known when the trial was last read."""
    ordered: tuple[Trial, ...] = ()
    newest: int = 0
    work: Work = field(default_factory=Work)

    def update(self, store: Store, name: str) -> None:
        changed, self.newest = store.trials_since(name, self.newest)
        for trial in changed:
            if before := self.trials.get(trial.number):
                self.work -= Work.of(before.stages)
            self.work += Work.of(trial.stages)
            self.trials[trial.number] = trial
            self.changed[trial.number] = self.newest
        if changed:
            self.ordered = tuple(self.trials[number] for number in sorted(self.trials))


class StudySource:
    """A study store that may not exist yet. Threads may share it.

    It remembers the trials of the studies it was asked for, and asks the store for changes only.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._opened: Store | None = None
        self._watched: dict[str, _Watched] = {}
        self._kept: dict[tuple[str, ...], tuple[str, Any]] = {}
        self._lock = Lock()
        self._reading = Lock()

    def store(self) -> Store:
        """Return the store, opened read-only.

        Raises:
            HpoError: it does not exist, cannot be reached, or is of another version; the next call
                tries again.
        """
        with self._lock:
            if self._opened is None:
                self._opened = Store.open(self._url, read_only=True)
            return self._opened

    def snapshot(self, name: str) -> Snapshot:
        """Return a study as it stands.

        Raises:
            NotFound: there is no such study.
            StoreError: the store cannot be read.
        """
        return self.changes(name, 0)[0]

    def changes(self, name: str, since: int) -> tuple[Snapshot, list[Trial]]:
        """Return a study as it stands, and its trials that have changed after the event `since`.

        Raises what `snapshot` does.
        """
        store = self.store()
        with self._reading:  # whoever comes second has the answer at once
            record = store.study(name)
            seen = self._watched.get(name)
            if seen is None or seen.created_at != record.created_at:
                seen = self._watched[name] = _Watched(record.created_at)
            seen.update(store, name)
            spent = spent_by(record, len(seen.trials), seen.work + store.lost_work(name))
            skills, front = store.skills(name), store.front(name)
            now = Snapshot(record, seen.ordered, seen.newest, spent, skills, front)
            news = [trial for trial in seen.ordered if seen.changed[trial.number] > since]
        return now, news

    def kept(self, now: Snapshot, what: tuple[str, ...], make: Callable[[], Kept]) -> Kept:
        """Return what `make` returns, made once for each revision of a study; `what` names it."""
        key = (now.record.study.name, *what)
        revision, found = self._kept.get(key, ("", None))
        if revision != now.revision:
            found = make()
            self._kept[key] = (now.revision, found)
            while len(self._kept) > _KEPT:
                self._kept.pop(next(iter(self._kept)))
        kept: Kept = found
        return kept

    def close(self) -> None:
        """Close the store; it is opened again when asked for."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def plan(self, name: str, number: int) -> tuple[LayerRecord, ...]:
        return self.store().plan(name, number)
