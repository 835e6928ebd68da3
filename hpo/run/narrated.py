"""A bench whose work can be followed in the worker's log."""

import logging
from collections.abc import Sequence

from hpo.format import duration_text
from hpo.run.bench import Bench, Setup
from hpo.run.job import Job, StageResult
from hpo.watch.logs import about

_log = logging.getLogger(__name__)
_STAGE = {"event": "stage"}


class Narrated(Bench):
    """Does what another bench does; every record made meanwhile carries trial, attempt and stage."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def setup(self) -> Setup:
        return self._bench.setup()

    def run(self, job: Job, stage: str) -> StageResult:
        with about(trial=job.number, attempt=job.attempt, stage=stage):
            result = self._bench.run(job, stage)
            took = duration_text(result.seconds)
            if result.failure is None:
                _log.info("done in %s", took, extra=_STAGE)
            else:
                failure = result.failure
                _log.warning("%s after %s: %s", failure.cause, took, failure.message, extra=_STAGE)
            return result

    def forget(self) -> None:
        self._bench.forget()

    def preempt(self) -> None:
        self._bench.preempt()

    def waiting(self) -> list[tuple[Job, StageResult]]:
        return self._bench.waiting()

    def settle(self, jobs: Sequence[Job]) -> None:
        self._bench.settle(jobs)

    def carry(self, job: Job) -> bytes:
        return self._bench.carry(job)

    def take(self, job: Job, carried: bytes) -> None:
        self._bench.take(job, carried)
