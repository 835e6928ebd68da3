"""The study store: the record of every study, and the only state there is.

Values in, values out; every method is one transaction. Reading needs no permission. Writing a study
needs its lease, which one coordinator holds at a time; a write with a lease that was lost raises
`LeaseLost` and changes nothing.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from sqlalchemy.engine import URL

from hpo.errors import NotFound
from hpo.healing_curve import HealingCurve
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.store import by_device, checking, leases, listing, migrations, reading, wishes, writing
from hpo.store.backup import automatic_target, back_up
from hpo.store.by_device import MeasuredDevice
from hpo.store.checking import Fault
from hpo.store.database import WRITER_PATIENCE_S, Database
from hpo.store.spending import Work
from hpo.store.url import display, file_of, parse, refuse_network_file_system
from hpo.store.values import (
    Event,
    EventKind,
    Front,
    Lease,
    Request,
    StudyRecord,
    StudyState,
    StudySummary,
    TrialLease,
    Wish,
)
from hpo.study import Study
from hpo.trial import LayerRecord, Trial

_log = logging.getLogger(__name__)

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Store:
    """A study store on SQLite or PostgreSQL. Open it with `Store.open`; threads may share it.

    Every method raises `StoreError` when the database cannot be reached or used, and, where it takes
    a study's name or a trial's number, `NotFound` when there is none.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(
        cls, url: str | None = None, *, read_only: bool = False, patience_s: float = WRITER_PATIENCE_S
    ) -> Self:
        """Open the store at `url` (else ``$HPO_STORAGE``, else ``sqlite:///hpo.db``).

        It is made, or brought up to this version's schema, unless `read_only`. Once open, a write waits up to
        about `patience_s` for a database that is away or busy.

        Raises:
            UsageError: `url` is no address of a store.
            NotFound: it is to be read only, and is not there.
            StoreError: it cannot be reached, is newer than this version (or older, to be read only), or
                is a SQLite file on a network file system.
            Unsupported: its driver is not installed.
        """
        address = parse(url)
        _check_file(address, read_only)
        store = cls(Database(address, read_only=read_only, patience_s=patience_s))
        try:
            store._prepare(read_only)
        except BaseException:
            store.close()
            raise
        return store

    def _prepare(self, read_only: bool) -> None:
        if read_only:
            self._database.read(lambda c: migrations.require_current(c, self.url), patient=False)
        elif not self._database.read(migrations.is_current, patient=False):
            self._back_up_old()
            self._database.write(migrations.migrate)

    def _back_up_old(self) -> None:
        """Copy a store of an older schema before it is changed; a new one has nothing to keep."""
        done = self._database.read(migrations.applied, patient=False)
        if not done:
            return
        schema = " ".join(map(str, max(done.items())))
        if (target := automatic_target(self._database.url, schema)) is not None:
            if not target.exists():  # of the same second
                back_up(self._database.url, target)
            _log.warning("the store as it was before its schema changed is kept in %s", target)
        else:
            _log.warning("%s changes its schema in one transaction, and no copy of it is made", self.url)

    @property
    def url(self) -> str:
        """Where the store is, its password hidden."""
        return display(self._database.url)

    @property
    def schema(self) -> str:
        """Number and name of the newest migration the store has been through."""
        return " ".join(map(str, max(self._database.read(migrations.applied).items())))

    def back_up(self, target: Path) -> Path:
        """Copy the store as it stands to a new file; see `hpo.store.backup.back_up`."""
        return back_up(self._database.url, target)

    def faults(self, at: float) -> list[Fault]:
        """Return what is wrong with the store, seen from the time `at`; nothing is changed."""
        return self._database.read(lambda c: checking.faults(c, at))

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # Reading

    def study(self, name: str) -> StudyRecord:
        return self._database.read(lambda c: reading.study(c, name))

    def studies(self) -> tuple[StudySummary, ...]:
        """Return a summary of each study, oldest first; five queries whatever their number."""
        return self._database.read(listing.studies)

    def requested(self, name: str) -> Request:
        """Return what was last asked of the coordinator; cheap enough to poll."""
        return self._database.read(lambda c: reading.requested(c, name))

    def trials(self, name: str) -> tuple[Trial, ...]:
        """Return all trials in order of number."""
        return self._database.read(lambda c: reading.trials(c, name))

    def trials_since(self, name: str, event_id: int) -> tuple[tuple[Trial, ...], int]:
        """Return the trials named by events after `event_id`, and the newest event's id.

        Ask with 0 first and then with the id of the last answer; it costs what has changed.
        """
        return self._database.read(lambda c: reading.trials_since(c, name, event_id))

    def devices(self, name: str) -> tuple[MeasuredDevice, ...]:
        """Return the devices that the study's timings were taken on, the one of its first trials first."""
        return self._database.read(lambda c: by_device.devices(c, name))

    def trials_on(self, name: str, device: str) -> tuple[Trial, ...]:
        """Return all trials with what they came to on a device, by number; see `hpo.store.by_device`."""
        return self._database.read(lambda c: by_device.trials_on(c, name, device))

    def trial(self, name: str, number: int) -> Trial:
        return self._database.read(lambda c: reading.trial(c, name, number))

    def plan(self, name: str, number: int) -> tuple[LayerRecord, ...]:
        """Return what the trial's plan does to each layer."""
        return self._database.read(lambda c: reading.plan(c, name, number))

    def fronts(self, name: str) -> tuple[Front, ...]:
        """Return every front the study has had, in order of revision."""
        return self._database.read(lambda c: reading.fronts(c, name))

    def front(self, name: str) -> Front | None:
        """Return the study's latest front, None while it has none."""
        return self._database.read(lambda c: reading.front(c, name))

    def events(self, name: str, after: int = 0, limit: int | None = None) -> tuple[Event, ...]:
        """Return the first `limit` events with an id above `after`, oldest first."""
        return self._database.read(lambda c: reading.events(c, name, after, limit))

    def events_of(self, name: str, kind: EventKind) -> tuple[Event, ...]:
        """Return the events of a kind, oldest first."""
        return self._database.read(lambda c: reading.events_of(c, name, kind))

    def skills(self, name: str) -> tuple[Skill, ...]:
        """Return how good the search's model was when it was last judged; nothing where it never was."""
        event = self._database.read(lambda c: reading.latest(c, name, EventKind.MODEL))
        return () if event is None else tuple(map(Skill.from_mapping, event.payload["skills"]))

    def lost_work(self, name: str) -> Work:
        """Return what workers did in attempts that were lost, which no trial shows any more."""
        return self._database.read(lambda c: reading.lost_work(c, name))

    def holder(self, name: str) -> Lease | None:
        """Return the lease on the study, expired or not; None where it was never taken or given back."""
        return self._database.read(lambda c: leases.holder(c, name))

    def trial_leases(self, name: str) -> tuple[TrialLease, ...]:
        """Return until when each running trial counts as alive, by number."""
        return self._database.read(lambda c: reading.trial_leases(c, name))

    def trial_events(self, name: str, number: int) -> tuple[Event, ...]:
        """Return what has happened to a trial, oldest first, over all its attempts."""
        return self._database.read(lambda c: reading.trial_events(c, name, number))

    def healing_curve(self, name: str, number: int) -> HealingCurve | None:
        """Return how the healing of a trial's latest attempt has gone; None where it has not healed, or was
        run by a version that did not keep it."""
        return self._database.read(lambda c: reading.healing_curve(c, name, number))

    # Writing without a lease

    def create_study(self, study: Study, environment: Mapping[str, str], at: float) -> None:
        """Store a new study.

        Raises:
            UsageError: there is one of this name.
        """
        self._database.write(lambda c: writing.create_study(c, study, environment, at))

    def request(self, name: str, request: Request, at: float) -> None:
        """Ask something of whoever runs the study; `Request.NONE` takes it back."""
        self._database.write(lambda c: writing.request(c, name, request, at))

    def wish(self, name: str, candidate: Candidate, origin: str, at: float) -> None:
        """Ask for a trial; whoever runs the study adds it, or says why not, as an event."""
        self._database.write(lambda c: wishes.wish(c, name, candidate, origin, at))

    def wishes(self, name: str, after: int = 0) -> tuple[tuple[Wish, ...], int]:
        """Return the wishes after an event, oldest first, and the study's newest event."""
        return self._database.read(lambda c: wishes.wishes(c, name, after))

    def answered(self, name: str) -> frozenset[int]:
        """Return the ids of the wishes that were granted or refused."""
        return self._database.read(lambda c: wishes.answered(c, name))

    def delete_study(self, name: str) -> None:
        """Delete a study and everything of it.

        Raises:
            StoreError: a coordinator is running it.
        """
        self._database.write(lambda c: writing.delete_study(c, name, time.time()))

    # The lease

    def acquire(
        self, name: str, owner: str, seconds: float, at: float, *, replacing: str | None = None
    ) -> Lease:
        """Take the right to write a study until `at` + `seconds`; the epoch grows by one.

        `owner` must be unlike that of any other coordinator, for it may take its own lease again.
        `replacing` names a holder known to be dead, whose lease need not run out first.

        Raises:
            StoreError: another owner holds it and it has not expired.
        """
        return self._database.write(lambda c: leases.acquire(c, name, owner, seconds, at, replacing))

    def renew(self, lease: Lease, seconds: float, at: float) -> Lease:
        """Return the lease extended to `at` + `seconds`.

        Raises:
            LeaseLost: as every method below that takes a lease.
        """
        return self._database.write(lambda c: leases.renew(c, lease, seconds, at))

    def release(self, lease: Lease, at: float) -> None:
        """Give the lease back, so that another coordinator need not wait for its end."""
        self._database.write(lambda c: leases.release(c, lease, at))

    # Writing with a lease

    def set_state(self, lease: Lease, state: StudyState, message: str, at: float) -> None:
        self._database.write(lambda c: writing.set_state(c, lease, state, message, at))

    def replace_study(self, lease: Lease, study: Study, why: str, at: float) -> None:
        """Amend a study, say by a bigger budget; the document before is kept in the event.

        Raises:
            UsageError: `study` has another name.
        """
        self._database.write(lambda c: writing.replace_study(c, lease, study, why, at))

    def set_environment(self, lease: Lease, environment: Mapping[str, str], at: float) -> None:
        """Record versions and machine of a study that was created before any were known."""
        self._database.write(lambda c: writing.set_environment(c, lease, environment, at))

    def add_hours(self, lease: Lease, hours: float) -> None:
        """Add to the coordinator hours spent on the study."""
        self._database.write(lambda c: writing.add_hours(c, lease, hours))

    def add_trial(self, lease: Lease, trial: Trial, plan: Sequence[LayerRecord], at: float) -> None:
        """Store a new trial with its plan. The same one again is accepted.

        Raises:
            StoreError: the study has another trial of this number.
        """
        self._database.write(lambda c: writing.add_trial(c, lease, trial, plan, at))

    def save_trial(
        self, lease: Lease, trial: Trial, kind: EventKind, at: float, payload: Mapping[str, Any] = _NOTHING
    ) -> bool:
        """Store how a trial stands now, with its measurements and an event; return whether it was.

        A final trial is never overwritten, nor a later attempt by an earlier one; a completed one may only
        be REVISED or REOPENED. What is refused so is kept as an event CONFLICT, unless it is the stored
        result again. A running trial's lease is renewed.
        """
        return self._database.write(lambda c: writing.save_trial(c, lease, trial, kind, at, payload))

    def renew_trials(self, lease: Lease, numbers: Sequence[int], at: float) -> None:
        """Let those of these trials that are running count as alive for another while."""
        self._database.write(lambda c: writing.renew_trials(c, lease, numbers, at))

    def save_front(self, lease: Lease, front: Front) -> None:
        """Store a front that has changed. The same one again is accepted.

        Raises:
            StoreError: the study has another front of this revision.
        """
        self._database.write(lambda c: writing.save_front(c, lease, front))

    def note(
        self,
        lease: Lease,
        kind: EventKind,
        at: float,
        trial: int | None = None,
        attempt: int | None = None,
        payload: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Record an event that changes nothing else."""
        self._database.write(lambda c: writing.note(c, lease, kind, at, trial, attempt, payload))


def _check_file(address: URL, read_only: bool) -> None:
    path = file_of(address)
    if path is None:
        return
    refuse_network_file_system(path)
    if read_only and not path.exists():
        raise NotFound(
            f"there is no study store at {path}",
            "name one with --storage or HPO_STORAGE, or launch a study: hpo launch STUDY",
        )
