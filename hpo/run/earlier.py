"""Which earlier studies a search begins from: read from the store, and the same ones at every resume."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from hpo.errors import HpoError, InvalidStudy, NotFound
from hpo.problem import Problem
from hpo.search.earlier import EarlierStudy, Unusable
from hpo.search.warm_start import WarmStart
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import Trial, TrialState

USED = "warm_start"
"""The entry of a study's environment that says what its search began from."""
PINNED = "warm_start_trials"
"""The entry that says by which trials, so that a resumed search learns from the very same ones."""


@dataclass(frozen=True)
class Pin:
    """The trials of an earlier study that a search learns from."""

    study: str
    numbers: tuple[int, ...]
    digest: str
    """Of their candidates and measurements."""

    @classmethod
    def of(cls, earlier: EarlierStudy) -> Self:
        trials = earlier.completed
        return cls(earlier.name, tuple(trial.number for trial in trials), digest(trials))

    def __str__(self) -> str:
        return f"{self.study}:{','.join(_ranges(self.numbers))}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Self:
        study, ranges, found = text.split(":")
        ends = [[int(end) for end in part.split("-")] for part in ranges.split(",")]
        return cls(study, tuple(n for end in ends for n in range(end[0], end[-1] + 1)), found)


def digest(trials: Sequence[Trial]) -> str:
    """Return what changes when a trial's candidate or a measured value does."""
    told = [
        [trial.number, trial.candidate.key, [[m.metric, m.value] for m in trial.measurements]]
        for trial in trials
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def check_named(store: Store, study: Study) -> None:
    """Refuse earlier studies that do not exist, or that nothing can be learnt from whatever the model.

    Raises:
        InvalidStudy: with its path in the document.
    """
    for index in range(len(study.search.warm_start)):
        _read(store, study, index)


def warm_start(
    store: Store, study: Study, problem: Problem, environment: Mapping[str, str]
) -> WarmStart | None:
    """Return what a study's search may learn from; None where it names no earlier study.

    The trials are those that `environment` has pinned; all that are completed by now where it has none.

    Raises:
        InvalidStudy: an earlier study does not exist, or nothing can be learnt from it.
        HpoError: pinned trials are gone from the store, or are not what they were.
    """
    names = study.search.warm_start
    if not names:
        return None
    pins = {pin.study: pin for pin in map(Pin.parse, environment.get(PINNED, "").split())}
    found = []
    for index, name in enumerate(names):
        earlier = _pinned(store, study, pins[name]) if name in pins else _read(store, study, index)
        try:
            earlier.check(problem)
        except Unusable as reason:
            raise _refusal(name, str(reason), index) from None
        found.append(earlier)
    return WarmStart(problem, tuple(found))


def facts(store: Store, warm: WarmStart | None) -> dict[str, str]:
    """Return what a study's environment says of its warm start; nothing without one."""
    if warm is None:
        return {}
    said = "; ".join(_told(store, warm.problem, earlier) for earlier in warm.earlier)
    return {USED: said, PINNED: " ".join(str(Pin.of(earlier)) for earlier in warm.earlier)}


def _told(store: Store, problem: Problem, earlier: EarlierStudy) -> str:
    model = store.study(earlier.name).study.model.source
    return (
        f"{earlier.name!r}: {len(earlier.completed)} trials of the model {model}, "
        f"{' and '.join(earlier.measured(problem))}, "
        f"{len(earlier.parameters(problem.space))} of {len(problem.space)} parameters in common"
    )


def _read(store: Store, study: Study, index: int) -> EarlierStudy:
    name = study.search.warm_start[index]
    if name == study.name:
        raise _refusal(name, "it is this study itself", index)
    try:
        record = store.study(name)
    except NotFound as error:
        raise InvalidStudy(error.message, error.hint, ("search", "warm_start", index)) from None
    try:
        return EarlierStudy(name, record.study.space, record.study.objectives, _completed(store, name))
    except Unusable as reason:
        raise _refusal(name, str(reason), index) from None


def _pinned(store: Store, study: Study, pin: Pin) -> EarlierStudy:
    """Return an earlier study as it was when the search began."""
    lost = HpoError(
        f"study {study.name!r} began from {len(pin.numbers)} trials of {pin.study!r}, which are no longer in "
        f"{store.url} as they were; it cannot go on as it would have",
        f"put {pin.study!r} back, or launch a new study with --name",
    )
    try:
        record = store.study(pin.study)
    except NotFound:
        raise lost from None
    trials = tuple(trial for trial in _completed(store, pin.study) if trial.number in set(pin.numbers))
    if digest(trials) != pin.digest:
        raise lost
    return EarlierStudy(pin.study, record.study.space, record.study.objectives, trials)


def _completed(store: Store, name: str) -> tuple[Trial, ...]:
    return tuple(trial for trial in store.trials(name) if trial.state is TrialState.COMPLETED)


def _refusal(name: str, reason: str, index: int) -> InvalidStudy:
    return InvalidStudy(
        f"no warm start from {name!r}: {reason}",
        "take it out of search.warm_start, or name another study",
        ("search", "warm_start", index),
    )


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Yield ascending numbers as ranges: ``0-3``, ``5``."""
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            first, last = numbers[start], numbers[i - 1]
            yield str(first) if first == last else f"{first}-{last}"
            start = i
