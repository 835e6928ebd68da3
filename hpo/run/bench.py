"""The protocol of a bench: what a worker keeps between trials and does for each of them.

The model's bench is `hpo.run.workbench`; a benchmark of the runners uses one that does nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from hpo.compress.profile import ModelProfile
from hpo.run.job import Job, StageResult
from hpo.run.stage_journal import StageJournal


@dataclass(frozen=True)
class Setup:
    """What a worker knows once it is ready."""

    profile: ModelProfile | None
    """Of the dense model; None for a bench without a model."""
    device: str
    """Fingerprint of the device that timings are taken on."""
    environment: Mapping[str, str]
    """Versions and machine."""
    energy_counter: str
    """``nvml``, ``rapl``, or empty where energy can only be modelled."""


class Bench(Protocol):
    """Made once a worker, from the study's document."""

    def setup(self) -> Setup:
        """Load and prepare everything that trials share; may take minutes the first time."""
        ...

    def run(self, job: Job, stage: str) -> StageResult:
        """Do one stage. Never raises: what goes wrong is in the result."""
        ...

    def forget(self) -> None:
        """Drop what is left of the current job, its entries in the journal included."""
        ...

    def preempt(self) -> None:
        """Be told, from a signal handler or another thread, that this process has to go.

        The stage that runs ends soon, at a place from which it can be taken up again, with a failure of the
        cause PREEMPTED. A bench whose stages are short may go on with them instead.
        """
        return

    def waiting(self) -> list[tuple[Job, StageResult]]:
        """Return the results of this node's journal, oldest first: nobody may have heard of them."""
        return []

    def settle(self, jobs: Sequence[Job]) -> None:
        """Drop what the journal holds of these jobs."""
        return

    def carry(self, job: Job) -> bytes:
        """Return what another worker, of a lane, needs beside the job to go on with its last stage.

        Raises:
            HpoError: the job is not on this worker.
        """
        return b""

    def take(self, job: Job, carried: bytes) -> None:
        """Be where another worker is with a job, by what it carried.

        Raises:
            HpoError: it does not fit what this worker makes of the job.
        """
        return


class Journalling(Bench):
    """A bench that writes down what it has done before it tells anyone."""

    def __init__(self, bench: Bench, journal: StageJournal) -> None:
        self._bench, self._journal = bench, journal
        self._job: Job | None = None

    def setup(self) -> Setup:
        return self._bench.setup()

    def run(self, job: Job, stage: str) -> StageResult:
        self._job = job
        result = self._bench.run(job, stage)
        self._journal.write(job, result)
        return result

    def forget(self) -> None:
        self._bench.forget()
        if self._job is not None:
            self._journal.remove([self._job])
            self._job = None

    def preempt(self) -> None:
        self._bench.preempt()

    def carry(self, job: Job) -> bytes:
        return self._bench.carry(job)

    def take(self, job: Job, carried: bytes) -> None:
        self._job = job
        self._bench.take(job, carried)

    def waiting(self) -> list[tuple[Job, StageResult]]:
        return self._journal.waiting()

    def settle(self, jobs: Sequence[Job]) -> None:
        self._journal.remove(jobs)


@dataclass(frozen=True)
class BenchSpec:
    """How to make a bench in another process: a class of this code base, and a JSON document."""

    target: str
    """``module:Class``. Never read from a study file."""
    document: Mapping[str, Any]
    journal: str = ""
    """Under which name benches journal what they have done, until they are told to forget it; empty: they
    do not."""

    def make(self) -> Bench:
        """Return a bench, which journals what it does where the spec says so."""
        module, _, name = self.target.partition(":")
        bench: Bench = getattr(import_module(module), name)(self.document)
        return Journalling(bench, StageJournal(self.journal)) if self.journal else bench
