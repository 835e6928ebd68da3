"""Objectives, measurements and trials: the values that cross processes and the database.

A trial's life::

    WAITING --started--> RUNNING --completed--> COMPLETED
       ^                    |------stopped----> STOPPED    (not worth finishing; teaches the search)
       |                    |------failed-----> FAILED     (its cause is kept; never a number)
       +-------requeued-----+                              (worker or coordinator lost; attempt + 1)

A WAITING trial may also fail, without ever having run. COMPLETED, STOPPED and FAILED are final, but for one
thing: when the study's question or its device changes, a COMPLETED trial is `revised` (what does not hold
any more is left out) or `reopened` (and what is missing is measured). Moving on returns a new trial and
refuses a wrong state.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hpo.errors import HpoError, UsageError
from hpo.metric import METRICS, Metric, Source, metric
from hpo.space import Candidate


class Limit(BaseModel):
    """The worst value that is still acceptable, absolute or relative to the dense model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None = Field(default=None, allow_inf_nan=False)
    """In the metric's unit."""
    ratio_to_dense: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Times the dense model's value."""

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, data: Any) -> Any:
        is_number = isinstance(data, int | float) and not isinstance(data, bool)
        return {"value": data} if is_number else data

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.value is None) == (self.ratio_to_dense is None):
            raise ValueError("give either value or ratio_to_dense")
        return self

    def resolve(self, dense: float | None) -> float | None:
        """Return the limit in the metric's unit; None while the dense value is not known."""
        if self.value is not None:
            return self.value
        return None if dense is None or self.ratio_to_dense is None else self.ratio_to_dense * dense


class Objective(BaseModel):
    """A metric to improve, and how bad it may get. The only place where a sign is flipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    limit: Limit | None = None
    allow_modelled: bool = False
    """Accept a modelled value where the machine has no counter (energy only)."""

    @field_validator("metric")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            metric(name)
        except UsageError as error:
            raise ValueError(f"{error.message}|{error.hint}") from None
        return name

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"metric": data} if isinstance(data, str) else data

    @property
    def about(self) -> Metric:
        return METRICS[self.metric]

    @property
    def is_exact(self) -> bool:
        return self.about.source is Source.EXACT

    def loss(self, value: float) -> float:
        """Return `value` signed so that smaller is better; its own inverse."""
        return value if self.about.better == "lower" else -value

    def within(self, value: float, dense: float | None) -> bool:
        """Whether `value` keeps the limit. A limit that cannot be resolved yet holds nothing back."""
        bound = self.limit.resolve(dense) if self.limit else None
        return bound is None or self.loss(value) <= self.loss(bound)


@dataclass(frozen=True)
class Measurement:
    """One value of one metric, with where it came from.

    Raises:
        ValueError: value or spread is not finite, spread is negative, or repeats is below 1.
    """

    metric: str
    value: float
    unit: str
    source: Source
    spread: float = 0.0
    """Standard deviation over repeats, in the same unit; 0 for an exact value."""
    repeats: int = 1
    device: str = ""
    """Fingerprint of the device; empty for an exact value."""
    note: str = ""
    """The kernel, protocol or constants behind the value."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", Source(self.source))
        if not math.isfinite(self.value) or not math.isfinite(self.spread):
            raise ValueError(f"{self.metric} is {self.value} with spread {self.spread}; both must be finite")
        if self.spread < 0:
            raise ValueError(f"{self.metric} has the spread {self.spread}, which cannot be negative")
        if self.repeats < 1:
            raise ValueError(f"{self.metric} has {self.repeats} repeats, at least 1 is needed")

    @classmethod
    def exact(cls, name: str, value: float) -> Self:
        return cls(name, float(value), metric(name).unit, Source.EXACT)

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        return cls(**mapping)


@dataclass(frozen=True)
class LayerRecord:
    """What a plan did to one layer, for people to read; the plan itself lives in `compress`."""

    layer: str
    kind: str
    """``dense``, ``low_rank``, ``mpo``."""
    size: str
    """Rank or bond dimensions in words, e.g. ``rank 34`` or ``bonds 12, 12``."""
    parameters: int
    dense_parameters: int
    bytes: int

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        return cls(**mapping)


Note = float | str
"""A figure or a few words."""


@dataclass(frozen=True)
class StageTime:
    """A stage of a trial that is done, and how long it took."""

    stage: str
    seconds: float
    joules: float | None = None
    """What the machine's energy counter rose by meanwhile; None where there is none, or none for this worker
    alone."""


class TrialState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        return self in (TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED)


class Cause(StrEnum):
    """Why a trial failed. Different causes teach different things, so they are never mixed."""

    OUT_OF_MEMORY = "out_of_memory"
    NOT_A_NUMBER = "not_a_number"
    UNSUPPORTED = "unsupported"
    LOST_WORKER = "lost_worker"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    """Its worker was told to go. Of an attempt only: the trial is tried again, as often as need be."""
    ERROR = "error"


class WrongState(HpoError):
    """A trial was asked to move on from a state that does not allow it."""


@dataclass(frozen=True)
class Trial:
    """An answer to a candidate, or one in the making."""

    number: int
    candidate: Candidate
    origin: str
    """Who asked: ``anchor:dense``, ``anchor:svd``, ``bayesian``, ..."""
    plan_hash: str = ""
    state: TrialState = TrialState.WAITING
    attempt: int = 1
    measurements: tuple[Measurement, ...] = ()
    stages: tuple[StageTime, ...] = ()
    cause: Cause | None = None
    message: str = ""
    """The error behind a failure, or why the trial was stopped."""
    worker: str = ""
    created_at: float = 0.0
    """Seconds since the epoch, like the next two."""
    started_at: float | None = None
    finished_at: float | None = None
    notes: Mapping[str, Note] = field(default_factory=dict)
    """What is no metric but explains the trial: loss before and after healing, and the like."""
    kept: int = 0
    """So many of the first measurements are of an earlier attempt and still hold."""

    def started(self, worker: str, at: float) -> Self:
        self._require(TrialState.WAITING)
        return replace(
            self,
            state=TrialState.RUNNING,
            worker=worker,
            started_at=at,
            measurements=self.measurements[: self.kept],
            stages=(),
            notes=self.notes if self.kept else {},
        )

    def advanced(
        self,
        stage: StageTime,
        measurements: Iterable[Measurement] = (),
        notes: Mapping[str, Note] | None = None,
    ) -> Self:
        """Record a finished stage of a running trial."""
        self._require(TrialState.RUNNING)
        return replace(
            self,
            stages=(*self.stages, stage),
            measurements=(*self.measurements, *measurements),
            notes={**self.notes, **(notes or {})},
        )

    def completed(self, at: float) -> Self:
        self._require(TrialState.RUNNING)
        return replace(self, state=TrialState.COMPLETED, finished_at=at)

    def stopped(self, why: str, at: float) -> Self:
        self._require(TrialState.RUNNING)
        return replace(self, state=TrialState.STOPPED, message=why, finished_at=at)

    def failed(self, cause: Cause, message: str, at: float) -> Self:
        self._require(TrialState.RUNNING, TrialState.WAITING)
        return replace(self, state=TrialState.FAILED, cause=cause, message=message, finished_at=at)

    def requeued(self) -> Self:
        """Return the next attempt, as if never started."""
        self._require(TrialState.RUNNING)
        return self._again(self.measurements[: self.kept])

    def reopened(self, measurements: Iterable[Measurement]) -> Self:
        """Return the next attempt of a completed trial, which measures what these, of it, leave out."""
        self._require(TrialState.COMPLETED)
        return self._again(tuple(measurements))

    def revised(self, measurements: Iterable[Measurement]) -> Self:
        """Return a completed trial as if it had brought only these of its measurements."""
        self._require(TrialState.COMPLETED)
        left = tuple(measurements)
        return replace(self, attempt=self.attempt + 1, measurements=left, kept=len(left), stages=())

    def _again(self, measurements: tuple[Measurement, ...]) -> Self:
        return replace(
            self,
            state=TrialState.WAITING,
            attempt=self.attempt + 1,
            worker="",
            started_at=None,
            finished_at=None,
            measurements=measurements,
            stages=(),
            notes=self.notes if measurements else {},  # they tell of its healing, which is done again alike
            kept=len(measurements),
        )

    def _require(self, *states: TrialState) -> None:
        if self.state not in states:
            raise WrongState(f"trial {self.number} is {self.state}, not {' or '.join(states)}")

    @property
    def is_dense(self) -> bool:
        return self.candidate.is_dense

    @property
    def seconds(self) -> float:
        """Busy time of the worker, summed over stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def joules(self) -> float | None:
        """Counted energy, summed over stages; None if a stage went uncounted, or none is done."""
        counted = [stage.joules for stage in self.stages if stage.joules is not None]
        return sum(counted) if counted and len(counted) == len(self.stages) else None

    def measurement(self, name: str) -> Measurement | None:
        """Return the last measurement of a metric, or None."""
        return next((m for m in reversed(self.measurements) if m.metric == name), None)

    def value(self, name: str) -> float | None:
        found = self.measurement(name)
        return None if found is None else found.value

    def to_mapping(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "kept": self.kept,
            "candidate": dict(self.candidate.values),
            "state": str(self.state),
            "cause": None if self.cause is None else str(self.cause),
            "measurements": [m.to_mapping() for m in self.measurements],
            "stages": [asdict(stage) for stage in self.stages],
            "notes": dict(self.notes),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        return cls(
            **{name: mapping[name] for name in _PLAIN},
            kept=mapping.get("kept", 0),  # of a store's older events it says nothing
            candidate=Candidate.of(mapping["candidate"]),
            state=TrialState(mapping["state"]),
            cause=None if mapping["cause"] is None else Cause(mapping["cause"]),
            measurements=tuple(map(Measurement.from_mapping, mapping["measurements"])),
            stages=tuple(StageTime(**stage) for stage in mapping["stages"]),
            notes=dict(mapping["notes"]),
        )


_PLAIN = (
    "number",
    "origin",
    "plan_hash",
    "attempt",
    "message",
    "worker",
    "created_at",
    "started_at",
    "finished_at",
)
