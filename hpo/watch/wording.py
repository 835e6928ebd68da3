"""What an event of the store says, in words."""

from collections.abc import Callable, Mapping
from typing import Any

from hpo.format import count_text, duration_text, number_text, value_text, words
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.store.values import Event, EventKind
from hpo.study import Study
from hpo.trial import Trial

Payload = Mapping[str, Any]


def message_of(event: Event, trial: Trial | None, study: Study) -> str:
    """Return what an event says. `trial` as it stands now, which tells of its latest attempt only."""
    if event.kind in _OF_STUDY:
        return _OF_STUDY[event.kind](event.payload)
    if event.kind is EventKind.ASKED:
        asked = f"by {event.payload.get('origin', 'nobody')}"
        return asked if trial is None else f"{asked}: {trial.candidate}"
    if event.kind in _FINAL:
        return "" if trial is None or trial.attempt != event.attempt else _ended(event.kind, trial, study)
    return _under_way(event)


def told(kind: EventKind, trial: Trial, study: Study) -> str:
    """Return what a listener of the coordinator hears, in words: the trial as it has just become."""
    if kind is EventKind.ASKED:
        return f"by {trial.origin}: {trial.candidate}"
    if kind in _FINAL:
        return _ended(kind, trial, study)
    if kind is EventKind.STAGE_DONE and trial.stages:
        stage = trial.stages[-1]
        return _stage({"stage": stage.stage, "seconds": stage.seconds, "joules": stage.joules})
    return f"on {trial.worker}" if kind is EventKind.STARTED else f"to be attempt {trial.attempt}"


_FINAL = (EventKind.COMPLETED, EventKind.STOPPED, EventKind.FAILED)


def _ended(kind: EventKind, trial: Trial, study: Study) -> str:
    if kind is EventKind.FAILED:
        return f"{words(str(trial.cause))}: {trial.message}"
    return _result(study, trial) if kind is EventKind.COMPLETED else trial.message


def _under_way(event: Event) -> str:
    payload = event.payload
    if event.kind is EventKind.STARTED:
        return f"on {payload.get('worker', 'a worker')}"
    if event.kind is EventKind.STAGE_DONE:
        return _stage(payload)
    cause = f"{words(str(payload['cause']))}: " if payload.get("cause") else ""
    return f"{cause}{payload.get('why', '')}"


def _stage(payload: Payload) -> str:
    took = f"{payload.get('stage', 'a stage')} took {duration_text(float(payload.get('seconds', 0.0)))}"
    joules = payload.get("joules")
    return took if joules is None else f"{took}, {value_text(1e3 * joules, 'mJ')}"


def _result(study: Study, trial: Trial) -> str:
    found = [m for o in study.objectives if (m := trial.measurement(o.metric)) is not None]
    return ", ".join(f"{words(m.metric)} {value_text(m.value, m.unit)}" for m in found)


def _front(payload: Payload) -> str:
    share = payload.get("hypervolume")
    size = count_text(len(payload.get("members", ())), "member")
    return size if share is None else f"{size}, hypervolume {share:.4f}"


def _lease(payload: Payload) -> str:
    before = payload.get("previous_owner")
    after = f", after {before}" if before else ""
    return (
        f"{payload.get('action', 'changed')} by {payload.get('owner')}, epoch {payload.get('epoch')}{after}"
    )


def _answered(payload: Payload) -> str:
    if "refused" in payload:
        return f"refused: {payload['refused']}"
    return f"granted as trial {payload.get('trial')}"


def _wished(payload: Payload) -> str:
    return f"{payload.get('origin', '')}: {Candidate.of(payload.get('candidate', {}))}"


def _model(payload: Payload) -> str:
    return "; ".join(Skill.from_mapping(skill).words for skill in payload.get("skills", ()))


def _note(payload: Payload) -> str:
    if payload.get("drift"):
        changed = ", ".join(str(drift.get("what", drift)) for drift in payload["drift"])
        return f"going on though this has changed: {changed}"
    if "environment" in payload:
        return "versions and machine recorded"
    said = (
        f"{words(key)} {_short(value)}" for key, value in payload.items() if not isinstance(value, Mapping)
    )
    return ", ".join(said)


def _short(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else str(value)


def _state(payload: Payload) -> str:
    message = payload.get("message")
    return f"{payload.get('state')}" + (f": {message}" if message else "")


_OF_STUDY: Mapping[EventKind, Callable[[Payload], str]] = {
    EventKind.CREATED: lambda payload: f"study {str(payload.get('hash', ''))[:12]}",
    EventKind.FRONT: _front,
    EventKind.LEASE: _lease,
    EventKind.REQUESTED: lambda payload: str(payload.get("request", "")),
    EventKind.STATE: _state,
    EventKind.AMENDED: lambda payload: str(payload.get("why", "")),
    EventKind.MODEL: _model,
    EventKind.WISHED: _wished,
    EventKind.ANSWERED: _answered,
    EventKind.NOTE: _note,
}
"""What happens to a study as a whole."""
