"""A runner on Ray Core actors: one actor a worker, one per GPU, pulled stage by stage.

Ray restarts nothing by itself (`max_restarts=0`): with restarts on, a retry goes to the actor that is
still restarting and burns all its attempts. A dead actor is reported, and a new one takes its place.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from hpo.errors import HpoError
from hpo.run.bench import Bench, BenchSpec, Setup
from hpo.run.job import Job, StageResult
from hpo.run.runner import Report
from hpo.study import Run

_RESTARTS = 3
"""Actors in a row that may die before they are ready; then, if no other worker lives, it is given up."""


class _Worker:
    """The actor: a bench behind JSON."""

    def __init__(self, target: str, document: Mapping[str, Any]) -> None:
        self._bench: Bench = BenchSpec(target, document).make()

    def setup(self) -> Setup:
        return self._bench.setup()

    def run(self, job: Mapping[str, Any], stage: str) -> dict[str, Any]:
        return self._bench.run(Job.from_mapping(job), stage).to_mapping()

    def forget(self) -> None:
        self._bench.forget()

    def pid(self) -> int:
        return os.getpid()


@dataclass
class _Slot:
    """A worker's place: its actor, and what it is doing."""

    name: str
    actor: ActorHandle
    ready: Any
    """Reference to the actor's setup while it is starting; None once it is ready."""
    job: Job | None = None
    task: Any = None
    since: float = 0.0
    deaths: int = 0


def connect(address: str | None, workers: int, threads: int) -> bool:
    """Join the cluster at `address`, or start a local one; return whether one was started.

    A local one stays on the loopback interface, and since Ray 2.59 wants a token by itself
    (``~/.ray/auth_token``): an open Ray port is remote code execution (CVE-2023-48022).
    """
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise HpoError(
                f"no Ray cluster can be joined at {address}: {_first_line(str(error))}",
                "start one with `ray start --head`, or leave --ray-address out to start Ray here",
            ) from None
        return False
    cores = max(os.cpu_count() or 1, workers * threads)
    # "local": never join by accident a cluster that somebody else left on this machine.
    ray.init(address="local", num_cpus=cores, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
    return True


class RayRunner:
    """As many actors as the study has workers."""

    summary = "Ray actors, here or on a cluster; one per GPU"
    concurrent = True

    def __init__(self, spec: BenchSpec, run: Run, address: str | None = None) -> None:
        self._spec, self._run = spec, run
        self._started = connect(address, run.workers, run.threads)
        self._options: dict[str, Any] = {
            "num_cpus": run.threads,
            "num_gpus": run.gpus_per_worker if self._wants_gpu() else 0,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(run.threads)}},
        }
        self._slots = [self._make(f"worker-{index}") for index in range(run.workers)]

    def _wants_gpu(self) -> bool:
        available = ray.cluster_resources().get("GPU", 0) > 0
        if self._run.device == "cuda" and not available:
            raise HpoError("the study asks for cuda, but the Ray cluster has no GPU", "set run.device: cpu")
        return self._run.device != "cpu" and available

    def _make(self, name: str, deaths: int = 0) -> _Slot:
        actor = (
            ray.remote(_Worker).options(**self._options).remote(self._spec.target, dict(self._spec.document))
        )
        return _Slot(name, actor, actor.setup.remote(), deaths=deaths)

    def start(self) -> Setup:
        while True:
            done, _ = ray.wait([slot.ready for slot in self._slots if slot.ready], timeout=None)
            slot = self._slot_of(done[0])
            try:
                setup: Setup = ray.get(done[0])
            except RayTaskError as error:
                raise _ours(error) from None
            except RayError as error:
                self._replace(slot, str(error))
                continue
            slot.ready, slot.deaths = None, 0
            return setup

    def free(self) -> int:
        self._note_ready()
        return sum(slot.ready is None and slot.job is None for slot in self._slots)

    def _note_ready(self) -> None:
        """Move actors whose setup is done to ready; replace those that died over it."""
        waiting = {slot.ready: slot for slot in self._slots if slot.ready is not None}
        if not waiting:
            return
        done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in done:
            slot = waiting[reference]
            try:
                ray.get(reference)
            except RayTaskError as error:
                raise _ours(error) from None
            except RayError as error:
                self._replace(slot, str(error))
            else:
                slot.ready, slot.deaths = None, 0

    def _replace(self, slot: _Slot, why: str) -> None:
        """Put a new actor in a dead one's place, for as long as any worker lives or may come up."""
        if slot.deaths >= _RESTARTS and not any(
            other.ready is None for other in self._slots if other is not slot
        ):
            raise HpoError(
                f"{slot.name} died {slot.deaths + 1} times before it was ready: {_first_line(why)}",
                "see the Ray logs of the session; is there enough memory for the model?",
            )
        self._slots[self._slots.index(slot)] = self._make(slot.name, slot.deaths + 1)

    def submit(self, job: Job, stage: str) -> str:
        slot = next((s for s in self._slots if s.job == job), None)
        if slot is None:
            slot = next((s for s in self._slots if s.ready is None and s.job is None), None)
        if slot is None:
            raise HpoError(f"no free worker for trial {job.number}", "submit only while free() is above 0")
        slot.job, slot.since = job, time.monotonic()
        slot.task = slot.actor.run.remote(job.to_mapping(), stage)
        return slot.name

    def release(self, job: Job) -> None:
        for slot in self._slots:
            if slot.job == job:
                slot.actor.forget.remote()
                slot.job = slot.task = None

    def wait(self, timeout_s: float) -> list[Report]:
        busy = {slot.task: slot for slot in self._slots if slot.task is not None}
        starting = [slot.ready for slot in self._slots if slot.ready is not None]
        if not busy and not starting:
            time.sleep(min(timeout_s, 0.05))
            return []
        done, _ = ray.wait([*busy, *starting], timeout=timeout_s)
        reports = [self._collect(busy[reference]) for reference in done if reference in busy]
        self._note_ready()
        return reports + self._overdue()

    def _collect(self, slot: _Slot) -> Report:
        job, task = slot.job, slot.task
        assert job is not None
        slot.task = None
        try:
            return Report(job, StageResult.from_mapping(ray.get(task)))
        except RayActorError as error:
            slot.job = None
            self._replace(slot, str(error))
            return Report(job, None, lost=_first_line(str(error)))

    def _overdue(self) -> list[Report]:
        """End the workers whose stage has taken too long."""
        limit, reports = self._run.stage_timeout_s, []
        for slot in list(self._slots):
            if slot.task is not None and slot.job is not None and time.monotonic() - slot.since > limit:
                job = slot.job
                ray.kill(slot.actor)
                slot.job = slot.task = None
                self._replace(slot, "stage timed out")
                reports.append(Report(job, None, lost=f"a stage took over {limit:g} s", timed_out=True))
        return reports

    def _slot_of(self, reference: Any) -> _Slot:
        return next(slot for slot in self._slots if slot.ready == reference)

    def close(self) -> None:
        for slot in self._slots:
            ray.kill(slot.actor)
        if self._started:
            ray.shutdown()


def _ours(error: RayTaskError) -> HpoError:
    """Return the error a worker raised, as itself where it is ours."""
    cause = error.cause
    if isinstance(cause, HpoError):
        return cause
    return HpoError(f"a worker could not be set up: {_first_line(str(cause))}", "")


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else text
