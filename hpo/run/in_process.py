"""A runner without other processes: stages run in the caller's own, one at a time. Needs no Ray."""

from collections.abc import Sequence

from hpo.errors import HpoError
from hpo.run.bench import Bench, BenchSpec, Setup
from hpo.run.job import Job, StageResult
from hpo.run.narrated import Narrated
from hpo.run.runner import Report, Runner
from hpo.study import Run


class InProcessRunner(Runner):
    """One worker: this process. `wait` does the work."""

    summary = "in this process, one trial at a time; needs no Ray"
    concurrent = False

    def __init__(self, spec: BenchSpec, run: Run, address: str | None = None) -> None:
        if address is not None:
            raise HpoError(
                "the in-process runner has no address", "drop --ray-address, or set run.runner: ray"
            )
        self._bench: Bench = Narrated(spec.make())
        self._current: Job | None = None
        self._due: tuple[Job, str] | None = None

    def start(self) -> Setup:
        return self._bench.setup()

    def free(self) -> int:
        return 0 if self._current else 1

    def submit(self, job: Job, stage: str) -> str:
        if self._current is not None and self._current != job:
            raise HpoError(f"trial {self._current.number} is still on the only worker", "release it first")
        self._current, self._due = job, (job, stage)
        return "in-process"

    def release(self, job: Job) -> None:
        if self._current == job:
            self._bench.forget()
            self._current = self._due = None

    def wait(self, timeout_s: float) -> list[Report]:
        if self._due is None:
            return []
        (job, stage), self._due = self._due, None
        return [Report(job, self._bench.run(job, stage))]

    def alive(self) -> dict[int, float]:
        return {} if self._current is None else {self._current.number: 0.0}

    def unheard(self) -> list[tuple[Job, StageResult]]:
        return self._bench.waiting()

    def settle(self, jobs: Sequence[Job]) -> None:
        self._bench.settle(jobs)

    def close(self) -> None:
        # Not forgotten: nobody says that what was done is stored, or that the trial will not go on.
        self._bench.preempt()
        self._current = self._due = None
