"""Who runs what for a study, and how busy they are: trials and events -> numbers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dashboards.worker_log import LostAttempt, WorkerLog
from hpo.store.values import Lease, StudyRecord, StudyState
from hpo.trial import Trial, TrialState

Period = tuple[float, float]
"""From when to when, in seconds since the epoch."""


class Outcome(StrEnum):
    """What has become of an attempt at a trial."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped early"
    FAILED = "failed"
    LOST = "worker lost"
    BROKEN_OFF = "broken off"


@dataclass(frozen=True)
class Attempt:
    """A trial on a worker, or what came to no end of it."""

    worker: str
    trial: int
    attempt: int
    start: float
    end: float | None
    """None while it runs."""
    outcome: Outcome


@dataclass(frozen=True)
class Worker:
    """A worker, and what it has done for a study."""

    name: str
    device: str
    """Fingerprint of what it measured on last; empty where it has measured nothing."""
    now: tuple[Attempt, ...]
    """What it runs."""
    stages: int
    """Done of the trial that it runs."""
    first_start: float
    last_sign: float
    """When something was last heard of it."""
    trials: int
    """That came to an end on it."""
    failed: int
    retries: int
    """Attempts that it began at trials which another attempt had not brought to an end."""
    lost: Mapping[str, int]
    """Why attempts on it came to no end -> how often."""
    idle: float | None
    """Share of the time the study was running, since its first start, in which it had no trial; None if there
    was no such time."""


@dataclass(frozen=True)
class Watch:
    """Whether anybody runs the study."""

    lease: Lease | None
    running: int
    """Trials that are marked as running."""
    claims: bool
    """The study is said to be running."""
    now: float

    @property
    def is_alive(self) -> bool:
        return self.lease is not None and self.lease.expires_at >= self.now

    @property
    def is_deserted(self) -> bool:
        """Somebody should be running it, and nobody does."""
        return not self.is_alive and (self.claims or self.running > 0)


def watch(record: StudyRecord, trials: Sequence[Trial], lease: Lease | None, now: float) -> Watch:
    running = sum(t.state is TrialState.RUNNING for t in trials)
    return Watch(lease, running, record.state is StudyState.RUNNING, now)


_OUTCOMES = {
    TrialState.RUNNING: Outcome.RUNNING,
    TrialState.COMPLETED: Outcome.COMPLETED,
    TrialState.STOPPED: Outcome.STOPPED,
    TrialState.FAILED: Outcome.FAILED,
}


def attempts_of(trials: Iterable[Trial], lost: Iterable[LostAttempt]) -> list[Attempt]:
    """Return every attempt that a worker began, in the order in which they began."""
    found = {}
    for t in lost:
        outcome = Outcome.LOST if t.crashed else Outcome.BROKEN_OFF
        found[t.trial, t.attempt] = Attempt(t.worker, t.trial, t.attempt, t.start, t.end, outcome)
    for trial in trials:
        key = (trial.number, trial.attempt)
        if trial.worker and trial.started_at is not None and key not in found:
            found[key] = Attempt(
                trial.worker, *key, trial.started_at, trial.finished_at, _OUTCOMES[trial.state]
            )
    return sorted(found.values(), key=lambda a: (a.start, a.trial))


def periods_of(log: WorkerLog, attempts: Sequence[Attempt], until: float) -> list[Period]:
    """Return when the study was running, up to `until`; since the first start where nothing is said of it."""
    if not log.periods:
        first = min((a.start for a in attempts), default=until)
        return [(first, max(first, until))]
    return [(start, max(start, until if end is None else end)) for start, end in log.periods]


def end_of(log: WorkerLog, trials: Sequence[Trial], alive: bool, now: float) -> float:
    """Return until when there is something to tell: now if somebody runs the study, else its last event."""
    finished = max((t.finished_at for t in trials if t.finished_at is not None), default=0.0)
    return now if alive else max(log.last_at, finished)


def workers_of(
    trials: Sequence[Trial], attempts: Sequence[Attempt], log: WorkerLog, until: float
) -> list[Worker]:
    """Return the workers of a study in order of name; `attempts` are `attempts_of`'s, and `until`, in seconds
    since the epoch, is `end_of`'s."""
    periods = periods_of(log, attempts, until)
    by_worker: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_worker[attempt.worker].append(attempt)
    lost: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in log.lost:
        lost[each.worker][each.why] += 1
    devices, stages = _devices(trials), {t.number: len(t.stages) for t in trials}
    return [
        _worker(
            name, found, devices.get(name, ""), stages, lost[name], log.signs.get(name, 0.0), periods, until
        )
        for name, found in sorted(by_worker.items(), key=lambda item: _natural(item[0]))
    ]


def _natural(name: str) -> tuple[str, int, str]:
    """Sort ``worker-2`` before ``worker-10``."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem, int(digits) if digits.isascii() and digits else -1, name


def _worker(
    name: str,
    attempts: Sequence[Attempt],
    device: str,
    stages: Mapping[int, int],
    lost: Mapping[str, int],
    sign: float,
    periods: Sequence[Period],
    until: float,
) -> Worker:
    now = tuple(a for a in attempts if a.outcome is Outcome.RUNNING)
    outcomes = Counter(a.outcome for a in attempts)
    over = (Outcome.COMPLETED, Outcome.STOPPED, Outcome.FAILED)
    spans = [(a.start, until if a.end is None else a.end) for a in attempts]
    return Worker(
        name=name,
        device=device,
        now=now,
        stages=stages[now[-1].trial] if now else 0,
        first_start=attempts[0].start,
        last_sign=max(
            sign, attempts[-1].start, *(a.end for a in attempts if a.end and a.outcome in over), 0.0
        ),
        trials=sum(outcomes[outcome] for outcome in over),
        failed=outcomes[Outcome.FAILED],
        retries=sum(a.attempt > 1 for a in attempts),
        lost=dict(lost),
        idle=idle_share(spans, periods, attempts[0].start),
    )


def idle_share(spans: Sequence[Period], periods: Sequence[Period], since: float) -> float | None:
    """Return the share of `periods`, from `since` on, that no span covers; None if they take no time then.

    Spans may overlap, and may reach out of the periods; what does counts for nothing.
    """
    open_at = [(max(start, since), end) for start, end in periods if end > max(start, since)]
    total = sum(end - start for start, end in open_at)
    if total <= 0:
        return None
    merged = _merged(spans)
    covered = sum(
        float(np.clip(np.minimum(merged[:, 1], end) - np.maximum(merged[:, 0], start), 0.0, None).sum())
        for start, end in open_at
    )
    return max(0.0, 1 - covered / total)


def _merged(spans: Sequence[Period]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the union of spans as (N, 2) spans that do not overlap."""
    ordered = np.array(sorted(spans), dtype=float).reshape(-1, 2)
    if len(ordered) == 0:
        return ordered
    reach = np.maximum.accumulate(ordered[:, 1])
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:, 0] > reach[:-1]]))
    ends = np.concatenate([reach[starts[1:] - 1], reach[-1:]])
    return np.stack([ordered[starts, 0], ends], axis=1)


def _devices(trials: Sequence[Trial]) -> dict[str, str]:
    """Return worker -> the device that its newest trial with a measurement was measured on."""
    found: dict[str, str] = {}
    for trial in reversed(trials):
        if trial.worker and trial.worker not in found:
            device = next((m.device for m in reversed(trial.measurements) if m.device), "")
            if device:
                found[trial.worker] = device
    return found
