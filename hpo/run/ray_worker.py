"""What runs in a worker's process on Ray: a bench behind JSON, which says that it lives while it works.

Two threads: the stages of trials in one, and in another, `ASIDE`, what must be answered meanwhile. Python
runs signal handlers in the main thread, which does neither: a worker that is told to go hears it at once,
however long its stage takes. Torch sets its number of threads by process, so stages compute as they would in
the main thread.
"""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import ray

from hpo.run.bench import Bench, BenchSpec, Setup
from hpo.run.causes import failure_of
from hpo.run.job import Failure, Job, StageResult
from hpo.run.narrated import Narrated
from hpo.run.ray_depot import Shipment
from hpo.trial import Cause
from hpo.watch.logs import configure_worker

ASIDE = "aside"
"""The concurrency group of what is answered while a stage runs."""

_LINGER_S = 5.0
"""For how long a worker that has to go stays to be asked for what it has done."""


@dataclass(frozen=True)
class Beat:
    """What a worker says when asked whether it lives."""

    node: str
    """Id of its node, in hex."""
    pid: int
    going: bool
    """It was told to end (SIGTERM), and takes no more stages."""


@dataclass(frozen=True)
class Handed:
    """What comes along with a model that another worker is to go on with."""

    digest: str
    """SHA-256 of its bytes, in hex."""
    size: int
    """In bytes."""
    failure: Failure | None = None
    """Why there is nothing to hand over."""


class Worker:
    """The actor."""

    def __init__(self, spec: BenchSpec, shipment: Shipment | None = None) -> None:
        configure_worker(str(spec.document.get("name", "")))
        self._spec, self._shipment = spec, shipment
        self._made: Bench | None = None
        self._making, self._working = threading.Lock(), threading.Lock()
        self._going = threading.Event()
        self._has_job = False
        signal.signal(signal.SIGTERM, self._told_to_go)

    @property
    def _bench(self) -> Bench:
        """Made when it is first asked for: its model may have to travel, and pulses are wanted meanwhile."""
        with self._making:
            if self._made is None:
                spec = self._spec if self._shipment is None else self._shipment.received(self._spec)
                self._made = Narrated(spec.make())
            return self._made

    def setup(self) -> Setup:
        with self._working:
            return self._bench.setup()

    def run(self, job: Mapping[str, Any], stage: str) -> dict[str, Any]:
        """Do one stage; a worker that has to go begins none."""
        with self._working:
            self._has_job = True
            if self._going.is_set():
                return _preempted(stage).to_mapping()
            return self._bench.run(Job.from_mapping(job), stage).to_mapping()

    def carry(self, job: Mapping[str, Any]) -> tuple[Handed, Any]:
        """Return the current model as bytes for another worker, and what to check them by."""
        with self._working:
            try:
                carried = self._bench.carry(Job.from_mapping(job))
            except Exception as error:
                return Handed("", 0, _failure(error)), np.empty(0, np.uint8)
        digest = hashlib.sha256(carried).hexdigest()
        # An array, since Ray keeps arrays as they are where bytes would be copied once more.
        return Handed(digest, len(carried)), np.frombuffer(carried, np.uint8)

    def take(self, job: Mapping[str, Any], stage: str, handed: Handed, carried: Any) -> dict[str, Any]:
        """Go on with what another worker has carried here, and do the stage that it is here for.

        Raises:
            ValueError: it is not what was sent.
        """
        content = carried.tobytes()
        if hashlib.sha256(content).hexdigest() != handed.digest:
            raise ValueError(f"of {handed.size} bytes of trial {job['number']}, some changed on the way")
        with self._working:
            self._has_job = True
            try:
                self._bench.take(Job.from_mapping(job), content)
            except Exception as error:
                return StageResult(stage, 0.0, failure=_failure(error)).to_mapping()
        return self.run(job, stage)

    def forget(self) -> None:
        with self._working:
            self._has_job = False
            self._bench.forget()

    @ray.method(concurrency_group=ASIDE)
    def pulse(self) -> Beat:
        return Beat(ray.get_runtime_context().get_node_id(), os.getpid(), self._going.is_set())

    @ray.method(concurrency_group=ASIDE)
    def waiting(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Return what the node's journal holds; nothing while a model is still on its way there."""
        told = [] if self._made is None else self._made.waiting()
        return [(job.to_mapping(), result.to_mapping()) for job, result in told]

    @ray.method(concurrency_group=ASIDE)
    def settle(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        if self._made is not None:
            self._made.settle([Job.from_mapping(job) for job in jobs])

    def _told_to_go(self, number: int, frame: FrameType | None) -> None:
        """React to SIGTERM: end what is under way where it can be taken up again, then end."""
        if not self._going.is_set():
            self._going.set()
            if self._made is not None:
                self._made.preempt()
            threading.Thread(target=self._go, name="leaving", daemon=True).start()

    def _go(self) -> None:
        if self._has_job:  # else nothing is under way that cannot be begun again, if only the setup
            with self._working:
                pass
            time.sleep(_LINGER_S)
        os._exit(0)  # nothing is left to be done, and Ray's threads would wait for each other


def _preempted(stage: str) -> StageResult:
    return StageResult(stage, 0.0, failure=Failure(Cause.PREEMPTED, "the worker was told to end (SIGTERM)"))


def _failure(error: Exception) -> Failure:
    failure = failure_of(error)
    message = f"the model could not be handed from worker to worker: {failure.message}"
    return Failure(failure.cause, message)
