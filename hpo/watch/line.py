"""A line of a study's log: what happened, to which trial, in which attempt, on which worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


def stamp(at: float) -> str:
    """Return a time, in seconds since the epoch, as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """Return `text` on one line without control characters: what a worker says must not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in " | ".join(filter(None, text.splitlines())))


@dataclass(frozen=True)
class Line:
    """One event, in words. The names of its fields are those of the structured logs."""

    id: int
    """Of the event; rises."""
    at: float
    """Seconds since the epoch."""
    study: str
    event: str
    trial: int | None
    attempt: int | None
    worker: str
    """Who had the trial in this attempt; empty where that is not known."""
    message: str
    details: Mapping[str, Any]
    """What the store keeps of the event."""

    def text(self) -> str:
        """Return it for people, on one line."""
        of = "" if self.trial is None else f"trial {self.trial}"
        if self.attempt is not None and self.attempt > 1:
            of += f" attempt {self.attempt}"
        who = " ".join(filter(None, (of, self.worker)))
        return printable(f"{stamp(self.at)} {self.event:<10} {who:<24} {self.message}").rstrip()

    def to_mapping(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "time": stamp(self.at),
            "id": self.id,
            "study": self.study,
            "event": self.event,
            "trial": self.trial,
            "attempt": self.attempt,
            "worker": self.worker,
            "message": self.message,
            "details": dict(self.details),
        }
