"""How much of their time do workers stand idle, waiting for something to do?

The whole coordinator with a SQLite store, on DTLZ2 with two measured and two exact objectives; its
workers sleep as long as a trial lasts. Idle is what is left of workers times seconds when the seconds
they were busy are taken away, from the first start to the last one: afterwards there is no more work.
What the sampler imports late is part of it, once a process.

    python -m benchmarks.bench_idle
"""

import heapq
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.search.classic import dtlz2
from benchmarks.search.simulation import Simulation
from hpo.metric import Source, metric
from hpo.problem import Preview, Problem
from hpo.run.bench import Setup
from hpo.run.coordinator import Coordinator
from hpo.run.job import Job, StageResult
from hpo.run.lease import owner_name
from hpo.run.runner import Report, Runner
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import Measurement


@dataclass(frozen=True)
class Case:
    """A study to run: its sampler, its workers, and how long each of its trials lasts."""

    sampler: str
    workers: int
    trial_s: float
    trials: int


CASES = (
    Case("bayesian", 8, 3.0, 150),
    Case("sobol", 64, 1.0, 400),
    Case("tpe", 64, 1.0, 400),
    Case("bayesian", 64, 30.0, 320),
)


@dataclass
class SleepingRunner(Runner):
    """Workers whose trials last `trial_s` seconds of real time and come to what a simulation says."""

    truth: Simulation
    workers: int
    trial_s: float
    spans: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Trial number -> when it was started and when it will be, or was, over."""
    concurrent = True

    def __post_init__(self) -> None:
        self._due: list[tuple[float, int]] = []
        self._jobs: dict[int, Job] = {}

    def start(self) -> Setup:
        return Setup(profile=None, device="sleeping", environment={}, energy_counter="")

    def free(self) -> int:
        return self.workers - len(self._jobs)

    def submit(self, job: Job, stage: str) -> str:
        now = time.perf_counter()
        self._jobs[job.number], self.spans[job.number] = job, (now, now + self.trial_s)
        heapq.heappush(self._due, (now + self.trial_s, job.number))
        return "sleeping"

    def release(self, job: Job) -> None:
        del self._jobs[job.number]

    def wait(self, timeout_s: float) -> list[Report]:
        first = self._due[0][0] - time.perf_counter() if self._due else timeout_s
        time.sleep(max(min(first, timeout_s), 0.0))
        reports = []
        while self._due and self._due[0][0] <= time.perf_counter():
            job = self._jobs[heapq.heappop(self._due)[1]]
            reports.append(Report(job, self._result(job)))
        return reports

    def _result(self, job: Job) -> StageResult:
        values = self.truth.truth(job.candidate).values
        assert isinstance(values, Mapping)  # no trial of DTLZ2 fails
        measured = tuple(
            Measurement(name, value, metric(name).unit, Source.MEASURED, device="sleeping")
            for name, value in values.items()
        )
        return StageResult("all", self.trial_s, "", measured)

    def close(self) -> None:
        """Nobody sleeps in a process of its own."""


@dataclass(frozen=True)
class Row:
    """How a study went."""

    case: Case
    wall_s: float
    """Seconds from the first start to the last."""
    idle: float
    """Share of the workers' time."""


def study_of(case: Case, truth: Simulation) -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": "idle",
            "model": "reference",
            "objectives": [{"metric": o.metric, "limit": 1.1} for o in truth.problem.objectives],
            "space": {
                name: {"type": "float", "low": 0.0, "high": 1.0} for name in truth.problem.space.parameters
            },
            "search": {"sampler": case.sampler},
            "budget": {"trials": case.trials},
            "run": {"workers": case.workers},
        }
    )


def without_anchors(problem: Problem) -> Problem:
    """Return the problem with every candidate refused that is none of its space, as the anchors are."""
    names = set(problem.space.parameters)

    def preview(candidates: Sequence[Candidate]) -> Preview:
        rows = [names <= c.values.keys() for c in candidates]
        found = problem.preview([c for c, able in zip(candidates, rows, strict=True) if able])
        exact = np.full((len(candidates), len(problem.exact)), np.nan)
        exact[rows] = found.exact
        plans = iter(found.plans)
        return Preview(
            exact=exact,
            features=np.empty((len(candidates), 0)),
            plans=tuple(next(plans) if ok else "" for ok in rows),
            refusals=tuple("" if ok else "not of this space" for ok in rows),
        )

    return replace(problem, preview=preview)


def run(case: Case) -> Row:
    """Return how much of their time the workers of a study were idle."""
    truth = dtlz2()
    study, runner = study_of(case, truth), SleepingRunner(truth, case.workers, case.trial_s)
    with tempfile.TemporaryDirectory() as directory, Store.open(f"sqlite:///{directory}/idle.db") as store:
        store.create_study(study, {}, time.time())
        lease = store.acquire(study.name, owner_name(), 600, time.time())
        problem, setup = without_anchors(truth.problem), runner.start()
        Coordinator(store, study, runner, setup, problem, lease, lambda kind, trial: None).run()
    return row(case, list(runner.spans.values()))


def row(case: Case, spans: Sequence[tuple[float, float]]) -> Row:
    """Return the idle share of workers that were busy between each of these pairs of seconds."""
    first, last = min(begin for begin, _ in spans), max(begin for begin, _ in spans)
    busy = sum(min(end, last) - begin for begin, end in spans)
    return Row(case, last - first, 1 - busy / (case.workers * (last - first)))


def main() -> None:
    print("| sampler | workers | seconds a trial | trials | seconds in all | at best | idle |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        found = run(case)
        best = ((case.trials - 1) // case.workers) * case.trial_s
        about = f"{case.sampler} | {case.workers} | {case.trial_s:g} | {case.trials}"
        print(f"| {about} | {found.wall_s:.1f} | {best:.1f} | {found.idle:.1%} |", flush=True)


if __name__ == "__main__":
    main()
