"""Values to rows and back; the only place that knows which column holds what, and how JSON is written."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from hpo.space import Candidate
from hpo.store.schema import FRONT, MEASUREMENT, TRIAL
from hpo.store.values import Event, EventKind, Front, Lease
from hpo.trial import Cause, LayerRecord, Measurement, StageTime, Trial, TrialState

AnyRow = Row[*tuple[Any, ...]]
"""A row whose columns are named where it is taken apart."""

TRIAL_COLUMNS = (
    TRIAL.c.number,
    TRIAL.c.candidate,
    TRIAL.c.origin,
    TRIAL.c.plan_hash,
    TRIAL.c.state,
    TRIAL.c.attempt,
    TRIAL.c.stages,
    TRIAL.c.cause,
    TRIAL.c.message,
    TRIAL.c.worker,
    TRIAL.c.created_at,
    TRIAL.c.started_at,
    TRIAL.c.finished_at,
    TRIAL.c.notes,
    TRIAL.c.kept,
)
"""In the order that `trial_from` takes."""

MEASUREMENT_COLUMNS = (
    MEASUREMENT.c.trial,
    MEASUREMENT.c.metric,
    MEASUREMENT.c.value,
    MEASUREMENT.c.unit,
    MEASUREMENT.c.source,
    MEASUREMENT.c.spread,
    MEASUREMENT.c.repeats,
    MEASUREMENT.c.device,
    MEASUREMENT.c.note,
)
"""The trial's number, then the fields of `Measurement` in their order."""

FRONT_COLUMNS = (
    FRONT.c.revision,
    FRONT.c.members,
    FRONT.c.hypervolume,
    FRONT.c.reference,
    FRONT.c.ideal,
    FRONT.c.trials,
    FRONT.c.at,
)


def to_json(document: object) -> str:
    """Return canonical JSON; floats are written so that they read back to the last bit."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def plain(text: str) -> str:
    """Return text that every database takes: no NUL, no half of a surrogate pair (both occur in errors)."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def trial_row(trial: Trial) -> dict[str, Any]:
    """Return the columns of `TRIAL`, without the study and without measurements."""
    return {
        "number": trial.number,
        "attempt": trial.attempt,
        "origin": trial.origin,
        "candidate": to_json(dict(trial.candidate.values)),
        "plan_hash": trial.plan_hash,
        "state": str(trial.state),
        "cause": None if trial.cause is None else str(trial.cause),
        "message": plain(trial.message),
        "worker": trial.worker,
        "created_at": trial.created_at,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
        "stages": to_json([_stage(stage) for stage in trial.stages]),
        "notes": to_json(dict(trial.notes)),
        "kept": trial.kept,
    }


def _stage(stage: StageTime) -> dict[str, Any]:
    """Return a stage as it was before energy was counted, with its joules where there are any."""
    counted = {} if stage.joules is None else {"joules": stage.joules}
    return {"stage": stage.stage, "seconds": stage.seconds, **counted}


def measurement_rows(study_id: int, trial: Trial) -> list[dict[str, Any]]:
    """Return a row of `MEASUREMENT` for each measurement, in order."""
    return [
        {
            "study_id": study_id,
            "trial": trial.number,
            "attempt": trial.attempt,
            "position": position,
            "metric": measurement.metric,
            "value": measurement.value,
            "unit": measurement.unit,
            "source": str(measurement.source),
            "spread": measurement.spread,
            "repeats": measurement.repeats,
            "device": measurement.device,
            "note": plain(measurement.note),
        }
        for position, measurement in enumerate(trial.measurements)
    ]


def trial_from(row: Sequence[Any], measurements: Iterable[Measurement]) -> Trial:
    """Return the trial of a row of `TRIAL_COLUMNS`."""
    number, candidate, origin, plan_hash, state, attempt, stages, cause, message, worker, *rest = row
    created_at, started_at, finished_at, notes, kept = rest
    return Trial(
        number=number,
        candidate=Candidate.of(json.loads(candidate)),
        origin=origin,
        plan_hash=plan_hash,
        state=TrialState(state),
        attempt=attempt,
        measurements=tuple(measurements),
        stages=tuple(StageTime(**stage) for stage in json.loads(stages)),
        cause=None if cause is None else Cause(cause),
        message=message,
        worker=worker,
        created_at=created_at,
        started_at=started_at,
        finished_at=finished_at,
        notes=json.loads(notes),
        kept=kept,
    )


def layers_to_json(layers: Sequence[LayerRecord]) -> str:
    return to_json([layer.to_mapping() for layer in layers])


def layers_from(text: str) -> tuple[LayerRecord, ...]:
    return tuple(map(LayerRecord.from_mapping, json.loads(text)))


def front_row(front: Front) -> dict[str, Any]:
    """Return the columns of `FRONT`, without the study."""
    lists = {name: to_json(getattr(front, name)) for name in ("members", "reference", "ideal")}
    return asdict(front) | lists


def front_from(row: Sequence[Any]) -> Front:
    """Return the front of a row of `FRONT_COLUMNS`."""
    revision, members, hypervolume, reference, ideal, trials, at = row
    members, reference, ideal = (tuple(json.loads(text)) for text in (members, reference, ideal))
    return Front(revision, members, hypervolume, reference, ideal, trials, at)


def event_from(row: AnyRow) -> Event:
    """Return the event of a row of ``id, at, kind, trial, attempt, payload``."""
    number, at, kind, trial, attempt, payload = row
    return Event(number, at, EventKind(kind), trial, attempt, json.loads(payload))


def lease_from(study: str, row: AnyRow) -> Lease | None:
    """Return the lease of a row of ``owner, epoch, expires_at``; None where nobody holds it."""
    owner, epoch, expires_at = row
    return None if owner is None else Lease(study, owner, epoch, expires_at)
