"""Benches that show where they are and what they are told, for tests on clusters of several nodes."""

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from hpo.run.bench import Setup
from hpo.run.job import Failure, Job, StageResult
from hpo.space import Candidate
from hpo.trial import Cause
from tests.run.benches import ToyBench

PLACED, TERMED, CARRYING = (
    f"tests.run.cluster_benches:{name}" for name in ("PlacedBench", "TermedBench", "CarryingBench")
)


def device() -> str:
    """Name the device here: the GPU that Ray has given to this worker, or else the node's kind."""
    if gpus := ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        return f"gpu-{','.join(gpus)}"
    return "target" if "target" in ray.get_runtime_context().get_assigned_resources() else "anywhere"


class PlacedBench(ToyBench):
    """Tells the device that it is on, as a setup's and as each measurement's; a line of log a stage."""

    def setup(self) -> Setup:
        return replace(super().setup(), device=device())

    def run(self, job: Job, stage: str) -> StageResult:
        result = super().run(job, stage)
        if self._log:
            with Path(self._log).open("a") as file:
                file.write(f"{stage} on {ray.get_runtime_context().get_node_id()}\n")
        return replace(result, measurements=tuple(replace(m, device=device()) for m in result.measurements))

    def waiting(self) -> list[tuple[Job, StageResult]]:
        """Return one result, the same on every worker of this node's disk."""
        return [(Job(7, 1, Candidate.of({"x": 0.5}), "plan"), StageResult("measure", 0.5))]


class TermedBench(ToyBench):
    """Once, its first trial's `measure` lasts until the process is told to go; tells its pid in the log."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(document)
        self._told = threading.Event()
        self._marker = Path(document["marker"])

    def run(self, job: Job, stage: str) -> StageResult:
        if job.number == 3 and stage == "measure" and not self._marker.exists():
            self._marker.write_text(str(os.getpid()))
            if self._told.wait(60):
                return StageResult(stage, 0.1, failure=Failure(Cause.PREEMPTED, "told to go"))
        return super().run(job, stage)

    def preempt(self) -> None:
        self._told.set()


class CarryingBench(PlacedBench):
    """Its `time` is of what was carried here: a model is the worker's pid and the trial's number."""

    _model = ""

    def run(self, job: Job, stage: str) -> StageResult:
        if stage == "compress":
            self._model = f"{os.getpid()}:{job.number}"
        result = super().run(job, stage)
        own = {"model": self._model, "pid": str(os.getpid())}
        return replace(result, notes={**result.notes, **own}) if stage == "time" else result

    def carry(self, job: Job) -> bytes:
        if job.number == self._faults.get("uncarried"):
            raise MemoryError("too large")
        return self._model.encode()

    def take(self, job: Job, carried: bytes) -> None:
        self._model = carried.decode()

    def forget(self) -> None:
        self._model = ""
