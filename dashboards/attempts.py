"""What happened to a trial, attempt by attempt: events -> rows of words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo.format import duration_text, words
from hpo.store.values import Event, EventKind
from hpo.trial import Trial

HEAD = ("when", "attempt", "what", "in words")
_WHAT: Mapping[EventKind, str] = {
    EventKind.ASKED: "asked",
    EventKind.STARTED: "started",
    EventKind.STAGE_DONE: "stage done",
    EventKind.COMPLETED: "completed",
    EventKind.STOPPED: "stopped",
    EventKind.FAILED: "failed",
    EventKind.REQUEUED: "put back into the queue",
    EventKind.REOPENED: "to be measured again",
    EventKind.REVISED: "set aside in part",
    EventKind.LOST: "lost its worker",
    EventKind.CONFLICT: "late news, not used",
    EventKind.NOTE: "noted",
}
_AGAIN = (EventKind.REQUEUED, EventKind.REOPENED, EventKind.REVISED)
_ROUTINE = frozenset({EventKind.ASKED, EventKind.STARTED, EventKind.STAGE_DONE})


@dataclass(frozen=True)
class Happening:
    """One thing that happened to a trial."""

    at: float
    """Seconds since the epoch."""
    attempt: int | None
    what: str
    said: str
    """Why, by whom, for how long; empty where there is nothing to add."""
    is_trouble: bool
    """Whether the attempt came to nothing by it."""


def happenings(trial: Trial, events: Sequence[Event]) -> tuple[Happening, ...]:
    """Return what happened to a trial, in order. An event of a kind that is not known here keeps its name."""
    return tuple(
        Happening(
            at=event.at,
            attempt=event.attempt,
            what=_WHAT.get(event.kind, words(str(event.kind))),
            said=_said(trial, event),
            is_trouble=event.kind in (EventKind.LOST, EventKind.FAILED),
        )
        for event in events
    )


def attempts_sentence(trial: Trial, events: Sequence[Event]) -> str:
    """Return how many attempts there were and why the earlier ones came to nothing."""
    if trial.attempt == 1:
        return "" if trial.state.is_final else "This is its first attempt."
    why = [str(e.payload["why"]) for e in events if e.kind in _AGAIN and e.payload.get("why")]
    said = f" Before: {'; '.join(dict.fromkeys(why))}." if why else ""
    return f"This is attempt {trial.attempt}.{said}"


def _said(trial: Trial, event: Event) -> str:
    payload: Mapping[str, Any] = event.payload
    match event.kind:
        case EventKind.ASKED:
            return f"by {trial.origin}"
        case EventKind.STARTED:
            return f"on {payload['worker']}" if payload.get("worker") else ""
        case EventKind.STAGE_DONE if "stage" in payload:
            return f"{words(str(payload['stage']))}, {duration_text(float(payload.get('seconds', 0.0)))}"
        case EventKind.FAILED if trial.cause is not None:
            return f"{words(trial.cause)}: {trial.message}" if trial.message else words(trial.cause)
        case EventKind.STOPPED:
            return trial.message
    # One that begins again goes on from an attempt that came to its end.
    seconds = "seconds" in payload and event.kind not in (EventKind.REOPENED, EventKind.REVISED)
    after = f" after {duration_text(float(payload['seconds']))} in its stage" if seconds else ""
    worker = f"{payload['worker']}: " if payload.get("worker") else ""
    return f"{worker}{payload.get('why', '')}{after}".strip()
