"""A search problem together with its truth: what every candidate would bring, were it run."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hpo.metric import Source, metric
from hpo.pareto import Frame
from hpo.problem import Problem
from hpo.search.earlier import EarlierStudy
from hpo.space import Candidate
from hpo.trial import Cause, Measurement, Note, StageTime, Trial, TrialState

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What running a candidate would bring."""

    values: Mapping[str, float] | Cause
    """A value for each metric, in its unit, or why the candidate fails."""
    stages: tuple[StageTime, ...]
    """How many seconds each stage would keep a worker busy, in order."""
    notes: Mapping[str, Note] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)
    """Note -> the stage after which a running trial shows it."""
    spreads: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation over repeats of what is measured repeatedly."""
    repeats: int = 1
    shared: str = ""
    """Key of the work that trials share: whoever comes later is spared the stages in `spared`."""
    spared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Simulation:
    """A problem with its truth.

    Raises:
        ValueError: `best` is no share of a box, or an anchor's origin does not begin with ``anchor``.
    """

    name: str
    problem: Problem
    truth: Callable[[Candidate], Answer]
    anchors: tuple[tuple[str, Candidate], ...]
    """(origin, candidate) pairs, e.g. ``("anchor:dense", Candidate())``; everybody is told them first."""
    best: float
    """Hypervolume of the true, or best known, front as a share of the problem's own box."""
    earlier: tuple[EarlierStudy, ...] = ()
    """Studies of other models that our samplers are told of; peers have no means to hear of them."""

    def __post_init__(self) -> None:
        if not 0 < self.best <= 1:
            raise ValueError(f"{self.name}: best is {self.best:g}; it is a share of the box, in (0, 1]")
        for origin, _ in self.anchors:
            if not origin.startswith("anchor"):
                raise ValueError(f"{self.name}: the anchor's origin {origin!r} must begin with 'anchor'")

    def trial(self, number: int, candidate: Candidate, origin: str, done: Collection[str] = ()) -> Trial:
        """Return the finished trial of a candidate: COMPLETED, or FAILED where the truth says so.

        `done` holds the keys of shared work that is done.
        """
        answer = self.truth(candidate)
        stages = _left(answer, done)
        running = self._running(number, candidate, origin, stages, answer.notes)
        if isinstance(answer.values, Cause):
            return running.failed(answer.values, "as recorded", running.seconds)
        measured = tuple(self._measurement(name, value, answer) for name, value in answer.values.items())
        return replace(running, measurements=measured).completed(running.seconds)

    def glimpses(
        self, number: int, candidate: Candidate, origin: str, done: Collection[str] = ()
    ) -> Iterator[Trial]:
        """Yield the trial as it stands, still RUNNING, after each of its stages that shows something."""
        answer = self.truth(candidate)
        stages = _left(answer, done)
        for count, stage in enumerate(stages, 1):
            ended = {s.stage for s in answer.stages[: answer.stages.index(stage) + 1]}
            notes = {name: value for name, value in answer.notes.items() if answer.shown.get(name) in ended}
            if stage.stage in answer.shown.values():
                yield self._running(number, candidate, origin, stages[:count], notes)

    def _running(
        self,
        number: int,
        candidate: Candidate,
        origin: str,
        stages: tuple[StageTime, ...],
        notes: Mapping[str, Note],
    ) -> Trial:
        plan = self.problem.preview([candidate]).plans[0]
        started = Trial(number, candidate, origin, plan).started("simulation", 0.0)
        return replace(started, stages=stages, notes=dict(notes))

    def _measurement(self, name: str, value: float, answer: Answer) -> Measurement:
        source = Source.EXACT if name in self.problem.exact else Source.MEASURED
        spread = answer.spreads.get(name)
        noise = (0.0, 1) if spread is None else (spread, answer.repeats)
        return Measurement(name, float(value), metric(name).unit, source, *noise)

    def refused(self, number: int, candidate: Candidate, origin: str) -> Trial:
        """Return the trial of a candidate that has no plan: FAILED before it began, at no cost."""
        reason = self.problem.preview([candidate]).refusals[0]
        return Trial(number, candidate, origin).failed(Cause.UNSUPPORTED, reason, 0.0)

    def start(self) -> list[Trial]:
        """Return the anchors' trials, numbered from 0."""
        return [self.trial(i, candidate, origin) for i, (origin, candidate) in enumerate(self.anchors)]

    def hypervolumes(self, trials: Sequence[Trial]) -> Array:
        """Return the hypervolume after each trial in turn as a share of `best`, shape (N,).

        A best-known front may be beaten, so a share may exceed 1.

        Raises:
            ValueError: neither limits nor the anchors among `trials` fix every side of the box.
        """
        losses = self.problem.losses(trials)
        losses[[trial.state is not TrialState.COMPLETED for trial in trials]] = np.nan
        return self._frame(trials).hypervolumes(losses) / self.best

    def _frame(self, trials: Sequence[Trial]) -> Frame:
        frame = self.problem.frame(trials)
        if frame is None:
            raise ValueError(
                f"{self.name}: give every objective a limit, or an anchor that has a value of it"
            )
        return frame


def _left(answer: Answer, done: Collection[str]) -> tuple[StageTime, ...]:
    """Return the stages that are not spared."""
    spared = answer.spared if answer.shared and answer.shared in done else ()
    return tuple(stage for stage in answer.stages if stage.stage not in spared)
