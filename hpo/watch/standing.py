"""Where a study stands, as its store tells it: read whole once, and from then on by what has changed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hpo.skill import Skill
from hpo.store.spending import Spent, spent_of
from hpo.store.store import Store
from hpo.store.values import TRIAL_LEASE_S, Front, Lease, StudyRecord, StudyState, TrialLease
from hpo.trial import Trial, TrialState
from hpo.watch.happened import Happened


@dataclass(frozen=True)
class Standing:
    """A study at one moment."""

    at: float
    """Seconds since the epoch."""
    record: StudyRecord
    trials: tuple[Trial, ...]
    """By number."""
    front: Front | None
    spent: Spent
    skills: tuple[Skill, ...]
    holder: Lease | None
    """The coordinator's lease, run out or not."""
    leases: Mapping[int, TrialLease]
    """By the number of each running trial."""
    retries: Mapping[str, int]
    """How often trials were put back into the queue, by cause."""

    @property
    def name(self) -> str:
        return self.record.study.name

    @property
    def counts(self) -> Mapping[TrialState, int]:
        """How many trials there are in each state that has any."""
        return Counter(trial.state for trial in self.trials)

    @property
    def causes(self) -> Mapping[str, int]:
        """How many trials have failed, by cause."""
        return Counter(str(trial.cause) for trial in self.trials if trial.cause is not None)

    @property
    def running(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.state is TrialState.RUNNING)

    @property
    def lease_s(self) -> float | None:
        """For how many seconds the coordinator's lease holds; negative once it has run out."""
        return None if self.holder is None else self.holder.expires_at - self.at

    @property
    def has_coordinator(self) -> bool:
        return self.lease_s is not None and self.lease_s > 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return is_over(self.record, self.holder, self.at)

    def silent_s(self, trial: Trial) -> float | None:
        """Return for how long a running trial's worker has not been heard of, in seconds.

        Signs of life are stored every few seconds only. None where none ever was.
        """
        lease = self.leases.get(trial.number)
        if lease is None or lease.until is None:
            return None
        return max(self.at - (lease.until - TRIAL_LEASE_S), 0.0)


def is_over(record: StudyRecord, holder: Lease | None, now: float) -> bool:
    """Whether nothing more will happen to a study by itself: nobody runs it, and nobody is to begin it.

    One that its coordinator left without a word is over once the lease has run out.
    """
    held = holder is not None and holder.expires_at > now
    return not held and record.state is not StudyState.CREATED


class Standings:
    """Follows one study through its store."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._trials: dict[int, Trial] = {}
        self._happened = Happened()

    def read(self, now: float) -> Standing:
        """Return where the study stands.

        Raises:
            NotFound: there is no such study.
        """
        record = self._store.study(self._name)
        self._catch_up()
        trials = tuple(self._trials[number] for number in sorted(self._trials))
        return Standing(
            now,
            record,
            trials,
            self._store.front(self._name),
            spent_of(record, trials, self._store.lost_work(self._name)),
            self._store.skills(self._name),
            self._store.holder(self._name),
            {lease.trial: lease for lease in self._store.trial_leases(self._name)},
            dict(self._happened.retries),
        )

    def _catch_up(self) -> None:
        changed, newest = self._store.trials_since(self._name, self._happened.newest)
        self._trials.update((trial.number, trial) for trial in changed)
        self._happened.read(self._store, self._name, newest)
