"""Another runner's news in the order of trials, so that a search sees the same whatever fails.

A sampler proposes by what is finished. With several workers that depends on which is the quicker one, so two
runs of one seed differ, with faults or without. Here the end of a trial is told only when those of all trials
before it were, one at a time: trial n is always asked for when the same trials are over.
"""

from collections.abc import Sequence

from hpo.run.bench import BenchSpec, Setup
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.run.runner import Report, Runner


class Immediate(Runner):
    """Does every stage in this process when it is asked for news; as many jobs may be under way as wanted."""

    concurrent = False

    def __init__(self, spec: BenchSpec) -> None:
        self._bench = spec.make()
        self._due: list[tuple[Job, str]] = []

    def start(self) -> Setup:
        return self._bench.setup()

    def free(self) -> int:
        return 1

    def submit(self, job: Job, stage: str) -> str:
        self._due.append((job, stage))
        return "immediate"

    def release(self, job: Job) -> None:
        pass

    def wait(self, timeout_s: float) -> list[Report]:
        due, self._due = self._due, []
        return [Report(job, self._bench.run(job, stage)) for job, stage in due]

    def close(self) -> None:
        pass


class InOrderRunner(Runner):
    """Wraps a runner of `workers` workers."""

    concurrent = False
    """Asks are made when they are due, not ahead of it."""

    def __init__(self, inner: Runner, workers: int) -> None:
        self._inner, self._workers = inner, workers
        self._running: set[int] = set()
        self._waiting: list[tuple[Job, str]] = []
        """First stages for which no worker is free just now."""
        self._held: dict[int, Report] = {}

    def start(self) -> Setup:
        return self._inner.start()

    def free(self) -> int:
        """Return how many jobs may be added, whether or not as many workers are there at this moment."""
        return self._workers - len(self._running)

    def submit(self, job: Job, stage: str) -> str:
        self._running.add(job.number)
        if stage != FIRST_STAGE or (not self._waiting and self._inner.free() > 0):
            return self._inner.submit(job, stage)
        self._waiting.append((job, stage))
        return "waiting"

    def release(self, job: Job) -> None:
        self._running.discard(job.number)
        self._inner.release(job)

    def wait(self, timeout_s: float) -> list[Report]:
        while self._waiting and self._inner.free() > 0:
            self._inner.submit(*self._waiting.pop(0))
        told = []
        for report in self._inner.wait(timeout_s):
            if report.result is not None and not report.result.following:
                self._held[report.job.number] = report
            else:
                told.append(report)
                if report.result is None:
                    self._running.discard(report.job.number)
        return told or self._next()

    def _next(self) -> list[Report]:
        """Return the end of the first trial under way, if it is known."""
        first = min(self._running, default=None)
        return [] if first is None or first not in self._held else [self._held.pop(first)]

    def alive(self) -> dict[int, float]:
        return self._inner.alive() | dict.fromkeys(self._held, 0.0)

    def unheard(self) -> list[tuple[Job, StageResult]]:
        return []  # adopted, a trial would be over before those in front of it

    def settle(self, jobs: Sequence[Job]) -> None:
        self._inner.settle(jobs)

    def close(self) -> None:
        self._inner.close()
