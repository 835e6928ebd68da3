"""Where the pages get their studies from: a store, opened when first needed, and only ever read."""

from dataclasses import dataclass
from threading import Lock

from hpo.skill import Skill
from hpo.store.spending import Spent, Work, spent_of
from hpo.store.store import Store
from hpo.store.values import StudyRecord
from hpo.trial import LayerRecord, Trial


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
    return Snapshot(
        record, trials, newest, spent_of(record, trials, store.lost_work(name)), store.skills(name)
    )


class StudySource:
    """A study store that may not exist yet. Threads may share it.

    It remembers the trials of the studies it was asked for, and asks the store for changes only.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._opened: Store | None = None
        self._seen: dict[str, Snapshot] = {}
        self._lock = Lock()

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
        store = self.store()
        record = store.study(name)
        before = self._seen.get(name)
        if before is None or before.record.created_at != record.created_at:
            before = Snapshot(record, (), 0, spent_of(record, (), Work()))
        changed, newest = store.trials_since(name, before.newest)
        trials = {t.number: t for t in (*before.trials, *changed)}
        ordered = tuple(trials[number] for number in sorted(trials))
        spent = spent_of(record, ordered, store.lost_work(name))
        now = Snapshot(record, ordered, newest, spent, store.skills(name))
        self._seen[name] = now
        return now

    def close(self) -> None:
        """Close the store; it is opened again when asked for."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def plan(self, name: str, number: int) -> tuple[LayerRecord, ...]:
        return self.store().plan(name, number)
