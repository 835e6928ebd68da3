"""Where a trial comes from and what came of it: notes and origins of trials -> a family."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hpo.trial import Trial

Kind = Literal["healed", "moved"]
WORDS: Mapping[Kind, str] = {
    "healed": "its healing started from the healed factors of",
    "moved": "its plan is a small move away from that of",
}
"""Kind of descent -> a sentence on a trial, without the end that names the other."""

_HEALED = "heal_parent"
"""The note in which a run keeps whose healed factors a healing started from."""
_MOVED = "refine:"
"""How the origin begins of a trial that was moved from another one, whose number follows."""
_SHARED = "heal_shared_run"
"""The note with the key of a healing that serves several trials."""
_MOST = 50


@dataclass(frozen=True)
class Link:
    """One step of descent."""

    kind: Kind
    number: int


@dataclass(frozen=True)
class Lineage:
    """The family of a trial, by number."""

    parents: tuple[Link, ...] = ()
    """At most one of each kind."""
    line: tuple[int, ...] = ()
    """Whose healed factors its own go back to: parent, grandparent and so on."""
    children: tuple[Link, ...] = ()
    sharing: tuple[int, ...] = ()
    """Other trials that took the same healing."""

    @property
    def is_empty(self) -> bool:
        return not (self.parents or self.children or self.sharing)


def lineage_of(trial: Trial, trials: Sequence[Trial]) -> Lineage:
    """Return the family of a trial among all of its study. Numbers that name no trial are left out."""
    healed: dict[int, int] = {}
    children: list[Link] = []
    sharing: list[int] = []
    shared = trial.notes.get(_SHARED)
    for other in trials:
        for link in _links(other):
            if link.kind == "healed":
                healed[other.number] = link.number
            if link.number == trial.number != other.number:
                children.append(Link(link.kind, other.number))
        is_kin = shared is not None and (other.notes.get(_SHARED) == shared or other.plan_hash == shared)
        if is_kin and other.number != trial.number:
            sharing.append(other.number)
    known = {other.number for other in trials}
    parents = tuple(link for link in _links(trial) if link.number in known and link.number != trial.number)
    return Lineage(parents, _line(trial.number, healed, known), tuple(children), tuple(sharing))


def _links(trial: Trial) -> tuple[Link, ...]:
    found = []
    parent = trial.notes.get(_HEALED)
    if isinstance(parent, float | int) and float(parent).is_integer():
        found.append(Link("healed", int(parent)))
    moved = trial.origin.removeprefix(_MOVED)
    if trial.origin.startswith(_MOVED) and moved.isdecimal():
        found.append(Link("moved", int(moved)))
    return tuple(found)


def _line(number: int, healed: Mapping[int, int], known: set[int]) -> tuple[int, ...]:
    line: list[int] = []
    while (number := healed.get(number, -1)) in known and number not in line and len(line) < _MOST:
        line.append(number)
    return tuple(line)
