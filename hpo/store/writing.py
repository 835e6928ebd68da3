"""Changes to the store. Each function is handed a connection inside one transaction.

Those that take a lease lock the study's row and check the lease first, so that between the question
and the change nobody else can write the study.

When a connection breaks between COMMIT and its answer, the transaction is run again. Trials and fronts
written twice alike are therefore accepted; other events, and hours, may in that rare case count twice.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hpo.errors import StoreError, UsageError
from hpo.store import leases, reading
from hpo.store.journal import append
from hpo.store.rows import (
    FRONT_COLUMNS,
    front_from,
    front_row,
    layers_to_json,
    measurement_rows,
    plain,
    to_json,
    trial_row,
)
from hpo.store.schema import FRONT, LEASE, MEASUREMENT, PLAN, STUDY, TRIAL
from hpo.store.values import TRIAL_LEASE_S, EventKind, Front, Lease, Request, StudyState
from hpo.study import Study
from hpo.trial import LayerRecord, Measurement, Trial, TrialState


def create_study(connection: Connection, study: Study, environment: Mapping[str, str], at: float) -> None:
    row = {
        "name": study.name,
        "state": str(StudyState.CREATED),
        "message": "",
        "requested": str(Request.NONE),
        "hours": 0.0,
        "environment": to_json(dict(environment)),
        "created_at": at,
        "updated_at": at,
        **_document(study),
    }
    try:
        key = connection.execute(insert(STUDY).returning(STUDY.c.id), row).scalar_one()
    except IntegrityError:
        raise UsageError(
            f"there is already a study {study.name!r} in the store",
            f"go on with it: hpo resume {study.name}; or give this one another --name",
        ) from None
    connection.execute(insert(LEASE), {"study_id": key, "owner": None, "epoch": 0, "expires_at": at})
    append(connection, key, EventKind.CREATED, at, payload={"hash": study.hash})


def _document(study: Study) -> dict[str, str]:
    # Keys as they come: the order of parameters is a sampler's order too, and resuming must not change it.
    return {"document": json.dumps(study.to_mapping(), separators=(",", ":")), "hash": study.hash}


def request(connection: Connection, name: str, wanted: Request, at: float) -> None:
    key = leases.lock(connection, name).study_id
    connection.execute(update(STUDY).where(STUDY.c.id == key).values(requested=str(wanted)))
    append(connection, key, EventKind.REQUESTED, at, payload={"request": str(wanted)})


def delete_study(connection: Connection, name: str, at: float) -> None:
    row = leases.lock(connection, name)
    leases.refuse_if_held(name, row, at)
    connection.execute(delete(STUDY).where(STUDY.c.id == row.study_id))


def set_state(connection: Connection, lease: Lease, state: StudyState, message: str, at: float) -> None:
    key = leases.held_study(connection, lease)
    values = {"state": str(state), "message": plain(message)}
    connection.execute(update(STUDY).where(STUDY.c.id == key).values(values))
    append(connection, key, EventKind.STATE, at, payload=values)


def replace_study(connection: Connection, lease: Lease, study: Study, why: str, at: float) -> None:
    if study.name != lease.study:
        raise UsageError(f"study {lease.study!r} cannot be renamed to {study.name!r}", "keep its name")
    key = leases.held_study(connection, lease)
    before = reading.study(connection, lease.study).study
    connection.execute(update(STUDY).where(STUDY.c.id == key).values(_document(study)))
    payload = {"why": why, "before": before.to_mapping(), "hash": study.hash}
    append(connection, key, EventKind.AMENDED, at, payload=payload)


def set_environment(connection: Connection, lease: Lease, environment: Mapping[str, str], at: float) -> None:
    key = leases.held_study(connection, lease)
    values = {"environment": to_json(dict(environment))}
    connection.execute(update(STUDY).where(STUDY.c.id == key).values(values))
    append(connection, key, EventKind.NOTE, at, payload={"environment": dict(environment)})


def add_hours(connection: Connection, lease: Lease, hours: float) -> None:
    key = leases.held_study(connection, lease)
    connection.execute(update(STUDY).where(STUDY.c.id == key).values(hours=STUDY.c.hours + hours))


def add_trial(
    connection: Connection, lease: Lease, trial: Trial, plan: Sequence[LayerRecord], at: float
) -> None:
    key = leases.held_study(connection, lease)
    if stored := reading.load(connection, key, TRIAL.c.number == trial.number):
        if trial_row(stored[0]) == trial_row(trial):
            return
        raise StoreError(
            f"study {lease.study!r} already has a trial {trial.number}: {stored[0].candidate}",
            "number the next one after the last",
        )
    connection.execute(insert(TRIAL), {"study_id": key, **trial_row(trial), "epoch": lease.epoch})
    connection.execute(insert(PLAN), {"study_id": key, "trial": trial.number, "layers": layers_to_json(plan)})
    _write_measurements(connection, key, trial, ())
    payload = {"origin": trial.origin}
    append(connection, key, EventKind.ASKED, at, trial.number, trial.attempt, payload)


_FOLLOWING = (EventKind.REVISED, EventKind.REOPENED)
"""What alone may happen to a completed trial."""

_UPDATE = update(TRIAL).where(
    TRIAL.c.study_id == bindparam("of_study"), TRIAL.c.number == bindparam("of_number")
)


def save_trial(
    connection: Connection, lease: Lease, trial: Trial, kind: EventKind, at: float, payload: Mapping[str, Any]
) -> bool:
    key = leases.held_study(connection, lease)
    found = reading.load(connection, key, TRIAL.c.number == trial.number)
    if not found:
        raise reading.no_such_trial(connection, key, lease.study, trial.number)
    stored = found[0]
    follows = kind in _FOLLOWING and stored.state is TrialState.COMPLETED and trial.attempt > stored.attempt
    if (stored.state.is_final and not follows) or trial.attempt < stored.attempt:
        _keep(connection, key, stored, trial, kind, at)
        return False
    until = at + TRIAL_LEASE_S if trial.state is TrialState.RUNNING else None
    held = {"epoch": lease.epoch, "lease_until": until}
    connection.execute(_UPDATE, {"of_study": key, "of_number": trial.number, **trial_row(trial), **held})
    there = stored.measurements if stored.attempt == trial.attempt else ()
    _write_measurements(connection, key, trial, there)
    append(connection, key, kind, at, trial.number, trial.attempt, payload)
    return True


def renew_trials(connection: Connection, lease: Lease, numbers: Sequence[int], at: float) -> None:
    key = leases.held_study(connection, lease)
    running = (TRIAL.c.study_id == key, TRIAL.c.state == str(TrialState.RUNNING))
    connection.execute(
        update(TRIAL).where(*running, TRIAL.c.number.in_(numbers)).values(lease_until=at + TRIAL_LEASE_S)
    )


def _keep(connection: Connection, key: int, stored: Trial, late: Trial, kind: EventKind, at: float) -> None:
    """Leave the stored trial as it is; what came late is kept as a conflict unless it says the same."""
    if _result(stored) == _result(late):
        return
    older = late.attempt < stored.attempt
    why = f"attempt {stored.attempt} is under way" if older else f"trial {stored.number} is {stored.state}"
    payload = {"kind": str(kind), "why": why, "refused": late.to_mapping()}
    append(connection, key, EventKind.CONFLICT, at, late.number, late.attempt, payload)


_RESULT = ("attempt", "state", "cause", "candidate", "plan_hash", "notes")


def _result(trial: Trial) -> tuple[object, ...]:
    """Return what two reports of one result have in common, whenever and by whom they were made."""
    row = trial_row(trial)
    return (*(row[name] for name in _RESULT), measurement_rows(0, trial))


def _write_measurements(
    connection: Connection, key: int, trial: Trial, there: tuple[Measurement, ...]
) -> None:
    """Make the measurements of this attempt, which are `there` so far, those of `trial`."""
    if trial.measurements[: len(there)] != there:
        here = (MEASUREMENT.c.study_id == key, MEASUREMENT.c.trial == trial.number)
        connection.execute(delete(MEASUREMENT).where(*here, MEASUREMENT.c.attempt == trial.attempt))
        there = ()
    if rows := measurement_rows(key, trial)[len(there) :]:
        connection.execute(insert(MEASUREMENT), rows)


def save_front(connection: Connection, lease: Lease, front: Front) -> None:
    key = leases.held_study(connection, lease)
    here = (FRONT.c.study_id == key, FRONT.c.revision == front.revision)
    stored = connection.execute(select(*FRONT_COLUMNS).where(*here)).one_or_none()
    if stored is not None:
        if front_from(stored) == front:
            return
        raise StoreError(
            f"study {lease.study!r} already has another front of revision {front.revision}",
            "give a changed front the next revision",
        )
    connection.execute(insert(FRONT), {"study_id": key, **front_row(front)})
    payload = {"revision": front.revision, "members": front.members, "hypervolume": front.hypervolume}
    append(connection, key, EventKind.FRONT, front.at, payload=payload)


def note(
    connection: Connection,
    lease: Lease,
    kind: EventKind,
    at: float,
    trial: int | None,
    attempt: int | None,
    payload: Mapping[str, Any],
) -> None:
    key = leases.held_study(connection, lease)
    append(connection, key, kind, at, trial, attempt, payload)
