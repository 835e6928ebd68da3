"""One search of one problem, from the anchors to the last trial, and what it cost."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Self

from benchmarks.search.problems import is_warm
from benchmarks.search.searcher import PEERS, Exhausted, Searcher, make, version_of
from benchmarks.search.simulation import Simulation
from hpo.problem import on_front
from hpo.search.botorch_import import importing_botorch
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

if TYPE_CHECKING:
    from hpo.search.screening import Screening

PROPOSALS = 100
"""Refused candidates in a row after which a search counts as stuck."""


@dataclass(frozen=True)
class Key:
    """What a run is a run of; the same key need not be run twice."""

    problem: str
    searcher: str
    version: str
    """Of the searcher."""
    seed: int
    trials: int
    initial: int
    stopping: bool = False
    """Whether trials are stopped on what they show before they are measured."""

    @classmethod
    def now(
        cls, problem: str, searcher: str, seed: int, trials: int, initial: int, stopping: bool = False
    ) -> Self:
        """Return the key of a run with the code and the packages at hand; raises what `version` does."""
        return cls(problem, searcher, version(problem, searcher, stopping), seed, trials, initial, stopping)


def version(problem: str, searcher: str, stopping: bool) -> str:
    """Return what the result of such a race holds for: the searcher's version, and a digest of the code that
    stops trials or tells of earlier studies, where that is done.

    Raises:
        PackageNotFoundError: the peer's package is not installed.
        NotFound: there is no such searcher.
    """
    warm = is_warm(problem) and searcher not in PEERS
    return version_of(searcher, ["screening"] * stopping + ["warm_start"] * warm)


@dataclass(frozen=True)
class Run:
    """What one search found, trial by trial, anchors not counted."""

    key: Key
    anchors: float
    """Hypervolume of the anchors alone, as a share of the best known one like those below."""
    hypervolumes: tuple[float, ...]
    """After each trial. Fewer than were asked for if the searcher had nothing more to propose."""
    seconds: tuple[float, ...]
    """Simulated, of all trials so far; the anchors' are the same for everybody and left out."""
    ask_seconds: tuple[float, ...]
    """CPU time of the process for choosing each trial and for being told what became of it."""
    refused: int
    """Proposals that had no plan; they cost nothing and count as no trial."""
    repeated: int
    """Trials whose plan had been tried before: they cost their seconds and bring nothing."""
    stopped: int = 0
    """Trials that were not measured."""
    lost: int = 0
    """Of those, how many would have been on the front at the end."""
    front: int = 0
    """Trials, anchors among them, that would be on the front at the end had none been stopped; 0 in ledgers
    from before it was counted."""

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        series = {name: tuple(mapping[name]) for name in ("hypervolumes", "seconds", "ask_seconds")}
        return cls(**{**mapping, **series, "key": Key(**mapping["key"])})


@dataclass
class _Entrant:
    """A searcher on the clock, and what it had refused."""

    searcher: Searcher
    simulation: Simulation
    spent: float = 0.0
    refused: int = 0

    def ask(self) -> Candidate:
        started = time.process_time()
        try:
            return self.searcher.ask()
        finally:
            self.spent += time.process_time() - started

    def tell(self, trial: Trial) -> None:
        started = time.process_time()
        self.searcher.tell(trial)
        self.spent += time.process_time() - started

    def proposal(self, number: int, origin: str) -> Candidate:
        """Return the next candidate that has a plan; those without are told as failed.

        Raises:
            Exhausted: the searcher has no more, or nothing but refused ones.
        """
        for _ in range(PROPOSALS):
            candidate = self.ask()
            if self.simulation.problem.preview([candidate]).plans[0]:
                return candidate
            self.refused += 1
            self.tell(self.simulation.refused(number, candidate, origin))
        raise Exhausted(f"{PROPOSALS} proposals in a row were refused")


def race(
    simulation: Simulation, searcher: str, trials: int, seed: int, initial: int, stopping: bool = False
) -> Run:
    """Return the run of a searcher, one of `searcher.names`, over so many trials.

    Raises:
        ImportError: the peer's package is not installed.
        NotFound: there is no such searcher.
        ValueError: the problem's box is not fixed by its limits and anchors.
    """
    key = Key.now(simulation.name, searcher, seed, trials, initial, stopping)
    entrant = _Entrant(make(searcher, simulation.problem, seed, initial, simulation.earlier), simulation)
    anchors = simulation.start()
    for anchor in anchors:
        entrant.tell(anchor)
    course = _Course(simulation, searcher, _screening(simulation) if stopping else None, list(anchors))
    asking: list[float] = []
    while len(asking) < trials:
        before = entrant.spent
        try:
            trial = course.run(entrant.proposal(len(course.history), searcher))
        except Exhausted:
            break
        entrant.tell(trial)
        asking.append(entrant.spent - before)
    tried = course.history[len(anchors) :]
    shares = simulation.hypervolumes(course.history).tolist()
    plans = [trial.plan_hash for trial in course.history]
    front = course.front()
    return Run(
        key,
        anchors=shares[len(anchors) - 1] if anchors else 0.0,
        hypervolumes=tuple(shares[len(anchors) :]),
        seconds=tuple(accumulate(trial.seconds for trial in tried)),
        ask_seconds=tuple(asking),
        refused=entrant.refused,
        repeated=sum(plans[i] in plans[:i] for i in range(len(anchors), len(plans))),
        stopped=sum(trial.state is TrialState.STOPPED for trial in tried),
        lost=sum(trial.state is TrialState.STOPPED for trial in front),
        front=len(front),
    )


@dataclass
class _Course:
    """The trials so far, and what running one more comes to."""

    simulation: Simulation
    origin: str
    screening: "Screening | None"
    history: list[Trial]
    shared: set[str] = field(default_factory=set)
    """Keys of shared work that is done."""

    def run(self, candidate: Candidate) -> Trial:
        """Run a candidate to its end, or until it is stopped, and enter it in the history."""
        trial = self._ended(candidate)
        answer = self.simulation.truth(candidate)
        if trial.state is TrialState.COMPLETED and answer.shared:
            self.shared.add(answer.shared)
        self.history.append(trial)
        return trial

    def _ended(self, candidate: Candidate) -> Trial:
        number = len(self.history)
        if self.screening is not None:
            for glimpse in self.simulation.glimpses(number, candidate, self.origin, self.shared):
                if why := self.screening.verdict(self.history, glimpse):
                    return glimpse.stopped(why, glimpse.seconds)
        return self.simulation.trial(number, candidate, self.origin, self.shared)

    def front(self) -> list[Trial]:
        """Return the trials that would be on the front of all, had none been stopped."""
        whole = [self.simulation.trial(t.number, t.candidate, t.origin) for t in self.history]
        best = on_front(self.simulation.problem.objectives, whole)
        return [trial for trial, is_best in zip(self.history, best, strict=True) if is_best]


def _screening(simulation: Simulation) -> "Screening":
    with importing_botorch():
        from hpo.search.screening import Screening

        return Screening(simulation.problem)
