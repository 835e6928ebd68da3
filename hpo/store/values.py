"""What the store hands out: values, never rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hpo.space import Candidate
from hpo.study import Study

TRIAL_LEASE_S = 30.0
"""For so long a running trial counts as alive without a sign of its worker."""


class StudyState(StrEnum):
    """Where a study stands. STOPPED and FAILED ones can be resumed; FINISHED ones need more budget."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class Request(StrEnum):
    """What a user asked of the coordinator, through the store alone."""

    NONE = "none"
    DRAIN = "drain"
    """Start nothing new, let running trials finish."""
    CANCEL = "cancel"
    """Stop now; running trials are requeued on resume."""


class EventKind(StrEnum):
    """What can happen to a study. Events are append-only."""

    CREATED = "created"
    ASKED = "asked"
    STARTED = "started"
    STAGE_DONE = "stage_done"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    REQUEUED = "requeued"
    LOST = "lost"
    REVISED = "revised"
    """What a completed trial has measured does not hold any more in part, and is left out."""
    REOPENED = "reopened"
    """A completed trial is to measure what it does not have."""
    CONFLICT = "conflict"
    FRONT = "front"
    LEASE = "lease"
    REQUESTED = "requested"
    STATE = "state"
    AMENDED = "amended"
    MODEL = "model"
    WISHED = "wished"
    """A person asked for a trial."""
    ANSWERED = "answered"
    """The coordinator granted or refused a wish."""
    NOTE = "note"


@dataclass(frozen=True)
class StudyRecord:
    """A stored study and where it stands."""

    study: Study
    state: StudyState
    message: str
    """Why it is in this state, where there is something to say."""
    requested: Request
    created_at: float
    """Seconds since the epoch, like every time in the store."""
    updated_at: float
    hours: float
    """Coordinator hours spent so far, summed over resumes."""
    environment: Mapping[str, str]
    """Versions and machine at launch."""


@dataclass(frozen=True)
class StudySummary:
    """One line of the list of studies, from a few aggregate queries."""

    name: str
    question: str
    state: StudyState
    message: str
    """Why it is in this state, where there is something to say."""
    counts: Mapping[str, int]
    """Trial state -> number of trials."""
    causes: Mapping[str, int]
    """Failure cause -> number of trials."""
    budget_trials: int | None
    budget_hours: float | None
    """Of coordinator time, as the next."""
    hours: float
    objectives: tuple[str, ...]
    """Names of the metrics, in the study's order."""
    best: Mapping[str, float]
    """Objective -> its best value among the members of the last front, in the metric's unit."""
    hypervolume: float | None
    """Of the last front, as a share of the reference box."""
    course: tuple[tuple[int, float], ...]
    """Final trials and hypervolume of every n-th front and the last, so that there are some 30 at most."""
    front_size: int
    workers: int
    """How many have a trial that is running."""
    lease_until: float | None
    """When the lease of its coordinator expires, or did; None where nobody holds it."""
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Front:
    """The front of a study as it stood at a time. Kept whenever it changes."""

    revision: int
    members: tuple[int, ...]
    """Trial numbers, ascending."""
    hypervolume: float | None
    """Share of the reference box; None while the box is not fixed."""
    reference: tuple[float, ...]
    """Losses, in the order of the study's objectives; empty while not fixed."""
    ideal: tuple[float, ...]
    trials: int
    """Final trials when it was computed."""
    at: float


@dataclass(frozen=True)
class Event:
    """Something that happened to a study."""

    id: int
    at: float
    kind: EventKind
    trial: int | None
    attempt: int | None
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Lease:
    """The right to write a study, held by one coordinator; the epoch fences off earlier holders."""

    study: str
    owner: str
    epoch: int
    expires_at: float


@dataclass(frozen=True)
class TrialLease:
    """Until when a running trial counts as alive, under which coordinator."""

    trial: int
    attempt: int
    worker: str
    epoch: int | None
    """Of the coordinator that started it; None where an older version did."""
    until: float | None


@dataclass(frozen=True)
class Wish:
    """A trial that a person asked for while the study runs, or before it goes on."""

    id: int
    """Of its event."""
    at: float
    candidate: Candidate
    origin: str
    """``retry:12`` for the candidate of trial 12 again, ``given:person`` for one of their own."""
