"""The coordinator's view of its study: trials in memory, every change written through to the store."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpo.pareto import Array, nondominated
from hpo.problem import Problem
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.store.spending import Work
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
        done = self.in_state(TrialState.COMPLETED)
        self._losses = dict(zip((t.number for t in done), problem.losses(done), strict=True))
        self._anchors = [trial for trial in done if trial.origin.startswith("anchor")]
        self._work = Work.of_trials(self.trials) + store.lost_work(lease.study)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, by number."""
        return tuple(self._trials.values())

    @property
    def final(self) -> int:
        """How many trials are over."""
        return self._final

    @property
    def work(self) -> Work:
        """What workers have done for the study, lost attempts included."""
        return self._work

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def get(self, number: int) -> Trial | None:
        """Return a trial, None where there is none of this number."""
        return self._trials.get(number)

    def trials_on(self, device: str) -> tuple[Trial, ...]:
        """Return all trials with what they once came to on a device."""
        return self._store.trials_on(self._lease.study, device)

    @property
    def front_members(self) -> tuple[int, ...]:
        """Numbers of the trials on the front as it was stored last."""
        return () if self._front is None else self._front.members

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
        if trial.attempt == before.attempt:
            self._work += Work.of(trial.stages[len(before.stages) :])
        if kind is EventKind.REQUEUED:
            self._count_lost(payload or {})
        self._final += trial.state.is_final - before.state.is_final
        if trial.state.is_final and not before.state.is_final:
            self._update_front(trial)
        self._listener(kind, trial)
        return trial

    def note(self, kind: EventKind, trial: Trial, payload: Mapping[str, Any]) -> None:
        """Record an event that leaves the trial as it is."""
        self._store.note(self._lease, kind, time.time(), trial.number, trial.attempt, payload)
        if kind is EventKind.LOST:
            self._count_lost(payload)

    def renew_trials(self, numbers: Sequence[int]) -> None:
        """Let running trials count as alive for another while."""
        self._store.renew_trials(self._lease, numbers, time.time())

    def judge_model(self, skills: Sequence[Skill]) -> None:
        """Record how good the search's model is."""
        payload = {"skills": [skill.to_mapping() for skill in skills]}
        self._store.note(self._lease, EventKind.MODEL, time.time(), payload=payload)

    def _count_lost(self, payload: Mapping[str, Any]) -> None:
        if "seconds" in payload:
            self._work += Work.lost(payload["seconds"])

    def renew_front(self) -> None:
        """Compute the front anew from all trials: figures, objectives or limits may have changed.

        It stays as it is where that comes to the same.
        """
        done = self.in_state(TrialState.COMPLETED)
        self._losses = dict(zip((t.number for t in done), self._problem.losses(done), strict=True))
        self._anchors = [trial for trial in done if trial.origin.startswith("anchor")]
        old = self._front
        if old is None:
            return
        front = self._front_of(sorted(self._losses))
        if (front.members, front.reference) != (old.members, old.reference):
            self._store.save_front(self._lease, front)
            self._front = front

    def _update_front(self, newest: Trial) -> None:
        """Keep the front current; a trial that does not enter it costs one comparison."""
        if newest.state is not TrialState.COMPLETED:
            return
        row = self._problem.losses([newest])[0]
        self._losses[newest.number] = row
        if newest.origin.startswith("anchor"):
            self._anchors = [*(a for a in self._anchors if a.number != newest.number), newest]
            self._anchors.sort(key=lambda anchor: anchor.number)
        elif self._front is not None and self._is_beaten(row, self._front.members):
            return
        anchored = newest.origin.startswith("anchor") or self._front is None
        pool = self._losses if anchored or self._front is None else (*self._front.members, newest.number)
        front = self._front_of(sorted(pool))
        old = self._front
        if old is None or (front.members, front.reference) != (old.members, old.reference):
            self._store.save_front(self._lease, front)
            self._front = front

    def _is_beaten(self, row: Array, members: Sequence[int]) -> bool:
        """Whether a trial is no better than a member of the front in anything, and no copy of it."""
        rows = self._rows(members)
        return bool(((rows <= row).all(axis=1) & (rows < row).any(axis=1)).any())

    def _rows(self, numbers: Sequence[int]) -> Array:
        return np.array([self._losses[number] for number in numbers]).reshape(
            len(numbers), len(self._problem.objectives)
        )

    def _front_of(self, pool: Sequence[int]) -> Front:
        """Return the front among completed trials, as it stands now."""
        rows = self._rows(pool)
        inside = np.flatnonzero((rows <= self._problem.bounds(self._anchors)).all(axis=1))
        kept = inside[nondominated(rows[inside])]
        frame = self._problem.frame(self._anchors)
        return Front(
            revision=0 if self._front is None else self._front.revision + 1,
            members=tuple(pool[row] for row in kept),
            hypervolume=None if frame is None else frame.hypervolume(rows[kept]),
            reference=() if frame is None else frame.reference,
            ideal=() if frame is None else frame.ideal,
            trials=self._final,
            at=time.time(),
        )
