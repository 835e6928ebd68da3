"""What has changed under a study since it was launched, that would make its figures mean something else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.errors import HpoError

_WHAT = {
    "profile": "the model or its calibration text",
    "evaluation": "the evaluation text",
    "compression-hpo": "the version of compression-hpo",
    "torch": "the version of torch",
    "transformers": "the version of transformers",
}
"""Entries of a study's environment that its figures depend on, whatever the machine. The device is none of
them: what was timed on another one is measured again."""

_VERSIONS = ("compression-hpo", "torch", "transformers")


@dataclass(frozen=True)
class Drift:
    """One thing that is not what it was."""

    key: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{_WHAT[self.key]}: {self.before}, now {self.now}"

    def to_mapping(self) -> dict[str, Any]:
        return {"key": self.key, "before": self.before, "now": self.now}


def drifts(before: Mapping[str, str], now: Mapping[str, str]) -> list[Drift]:
    """Return what has changed between two environments; nothing for an entry that either lacks.

    Of versions the third number and what follows it may change.
    """
    found = []
    for key in _WHAT:
        old, new = before.get(key, ""), now.get(key, "")
        same = _release(old) == _release(new) if key in _VERSIONS else old == new
        if old and new and not same:
            found.append(Drift(key, old, new))
    return found


def _release(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def refuse(name: str, found: list[Drift]) -> None:
    """Refuse to go on with a study under which something has changed.

    Raises:
        HpoError: naming all that has.
    """
    if found:
        told = "; ".join(map(str, found))
        raise HpoError(
            f"something has changed since study {name!r} was launched: {told}",
            "put it back, launch a new study with --name, or go on all the same with --allow-drift: "
            "figures from before and after will then stand side by side, and the study says so",
        )
