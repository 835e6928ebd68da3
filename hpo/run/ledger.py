"""The coordinator's view of its study: trials in memory, every change written through to the store."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpo.pareto import Frame, Mask, nondominated
from hpo.problem import Problem, feasible
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, Front, Lease
from hpo.trial import LayerRecord, Trial, TrialState

Listener = Callable[[EventKind, Trial], None]


class Ledger:
    """Trials by number. Each change is one transaction, and one call of the listener."""

    def __init__(self, store: Store, lease: Lease, problem: Problem, listener: Listener) -> None:
        self._store, self._lease, self._problem, self._listener = store, lease, problem, listener
        self._trials = {trial.number: trial for trial in store.trials(lease.study)}
        self._front = store.front(lease.study)
        self._final = sum(t.state.is_final for t in self._trials.values())

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number."""
        return tuple(self._trials.values())

    @property
    def front(self) -> Front | None:
        return self._front

    @property
    def final(self) -> int:
        """How many trials are over."""
        return self._final

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def in_state(self, *states: TrialState) -> list[Trial]:
        return [trial for trial in self._trials.values() if trial.state in states]

    def add(self, candidate: Candidate, origin: str, plan_hash: str, layers: Sequence[LayerRecord]) -> Trial:
        """Record a new candidate as the next trial."""
        trial = Trial(len(self._trials), candidate, origin, plan_hash, created_at=time.time())
        self._store.add_trial(self._lease, trial, layers, trial.created_at)
        self._trials[trial.number] = trial
        self._listener(EventKind.ASKED, trial)
        return trial

    def save(self, trial: Trial, kind: EventKind, payload: Mapping[str, Any] | None = None) -> Trial:
        """Record what has become of a trial."""
        before = self._trials[trial.number]
        self._store.save_trial(self._lease, trial, kind, time.time(), payload or {})
        self._trials[trial.number] = trial
        if trial.state.is_final and not before.state.is_final:
            self._final += 1
            self._update_front(trial)
        self._listener(kind, trial)
        return trial

    def note(self, kind: EventKind, trial: Trial, payload: Mapping[str, Any]) -> None:
        """Record an event that leaves the trial as it is."""
        self._store.note(self._lease, kind, time.time(), trial.number, trial.attempt, payload)

    def losses(self, kind: EventKind) -> dict[int, int]:
        """Return trial number -> how many events of a kind it has had; survives a restart."""
        counts: dict[int, int] = {}
        for event in self._store.events(self._lease.study):
            if event.kind is kind and event.trial is not None:
                counts[event.trial] = counts.get(event.trial, 0) + 1
        return counts

    def _update_front(self, newest: Trial) -> None:
        """Keep the front current; a trial that does not enter it costs one comparison."""
        if newest.state is not TrialState.COMPLETED:
            return
        anchors = newest.origin.startswith("anchor")
        pool = self.trials if anchors or self._front is None else self._challenge(newest)
        members, frame = front_of(self._problem, pool, self.trials)
        front = Front(
            revision=0 if self._front is None else self._front.revision + 1,
            members=tuple(trial.number for trial in members),
            hypervolume=None if frame is None else frame.hypervolume(self._problem.losses(members)),
            reference=() if frame is None else frame.reference,
            ideal=() if frame is None else frame.ideal,
            trials=self._final,
            at=time.time(),
        )
        old = self._front
        if old is None or (front.members, front.reference) != (old.members, old.reference):
            self._store.save_front(self._lease, front)
            self._front = front

    def _challenge(self, newest: Trial) -> tuple[Trial, ...]:
        members = () if self._front is None else self._front.members
        return (*(self._trials[number] for number in members), newest)


def front_of(
    problem: Problem, pool: Sequence[Trial], trials: Sequence[Trial]
) -> tuple[list[Trial], Frame | None]:
    """Return the members of the front among `pool`, by number, and the frame of the whole study."""
    anchors = [t for t in trials if t.origin.startswith("anchor")]
    able = [t for t, ok in zip(pool, _feasible(problem, pool, anchors), strict=True) if ok]
    kept = nondominated(problem.losses(able)) if able else np.zeros(0, dtype=bool)
    members = sorted((t for t, k in zip(able, kept, strict=True) if k), key=lambda t: t.number)
    return members, problem.frame(anchors)


def _feasible(problem: Problem, pool: Sequence[Trial], anchors: Sequence[Trial]) -> Mask:
    # Limits relative to the dense model need its trial, which may have left the pool.
    together = [*anchors, *pool]
    return feasible(problem, together)[len(anchors) :]
