"""What travels between coordinator and worker: jobs out, results back, both plain JSON values."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from hpo.healing_curve import HealingCurve
from hpo.space import Candidate
from hpo.trial import Cause, Measurement, Note

SCREEN_KL, HEAL_NLL_SHORT, HEAL_NLL_AFTER = "screen_kl", "heal_nll_short", "heal_nll_after"
TIERS = (SCREEN_KL, HEAL_NLL_SHORT, HEAL_NLL_AFTER)
"""Notes of a trial that say, before it is measured, what may come of it: how far the compressed model is from
the dense one before any healing, and the loss after the first steps of healing and after all of them."""

FIRST_STAGE = "compress"
"""Every job begins here; each result names the stage that follows."""


@dataclass(frozen=True)
class Job:
    """One attempt at one trial."""

    number: int
    attempt: int
    candidate: Candidate
    plan_hash: str
    """What the coordinator planned; a worker that arrives at another plan refuses to run it."""
    parent: int | None = None
    """Number of the trial whose healed factors the healing may start from."""
    parent_plan: str = ""
    """That trial's plan."""
    known: tuple[str, ...] = ()
    """Metrics that need not be measured: an earlier attempt's figures hold."""

    def to_mapping(self) -> dict[str, Any]:
        return {**asdict(self), "candidate": dict(self.candidate.values)}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        known = tuple(mapping.get("known", ()))
        return cls(**{**mapping, "candidate": Candidate.of(mapping["candidate"]), "known": known})


@dataclass(frozen=True)
class Failure:
    """Why a stage could not be done."""

    cause: Cause
    message: str


@dataclass(frozen=True)
class StageResult:
    """What one stage of a job brought."""

    stage: str
    seconds: float
    following: str = ""
    """The next stage; empty when the job is done."""
    measurements: tuple[Measurement, ...] = ()
    notes: Mapping[str, Note] = field(default_factory=dict)
    failure: Failure | None = None
    joules: float | None = None
    """Energy counted over the stage; None where there is no counter for this worker alone."""
    curve: HealingCurve | None = None
    """How the healing has gone so far, from its first step on; None of a stage that heals nothing."""

    def to_mapping(self) -> dict[str, Any]:
        failure = self.failure
        return {
            "stage": self.stage,
            "seconds": self.seconds,
            "following": self.following,
            "measurements": [m.to_mapping() for m in self.measurements],
            "notes": dict(self.notes),
            "failure": None if failure is None else [str(failure.cause), failure.message],
            "joules": self.joules,
            "curve": None if self.curve is None else self.curve.to_mapping(),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        failure, curve = mapping["failure"], mapping["curve"]
        return cls(
            stage=mapping["stage"],
            seconds=mapping["seconds"],
            following=mapping["following"],
            measurements=tuple(map(Measurement.from_mapping, mapping["measurements"])),
            notes=dict(mapping["notes"]),
            failure=None if failure is None else Failure(Cause(failure[0]), failure[1]),
            joules=mapping["joules"],
            curve=None if curve is None else HealingCurve.from_mapping(curve),
        )
