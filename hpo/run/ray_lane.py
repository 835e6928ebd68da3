"""Kinds of workers: those of a study, and those of its lanes, each with what it asks of a node."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hpo.models.shared_files import for_workers
from hpo.run.bench import BenchSpec
from hpo.study import Lane, Run
from hpo.watch.logs import worker_environment

MAIN = ""
"""The lane of all stages that have none of their own."""

_NODE_ID = "ray.io/node-id"
"""The label that Ray gives every node."""


@dataclass(frozen=True)
class WorkerKind:
    """What the workers of one lane have in common."""

    lane: str
    """The stage that it is for; `MAIN` for all others."""
    spec: BenchSpec
    """Of their bench: the study as it is for these workers, with their device and threads."""
    workers: int
    wanted: Mapping[str, float]
    """Ray resources that one worker takes."""
    accelerator: str | None = None

    def name(self, index: int) -> str:
        return f"{self.lane or 'worker'}-{index}"

    @property
    def marks(self) -> tuple[str, ...]:
        """Resources that tell the nodes of its lane from others; none for the main kind."""
        if not self.lane:
            return ()
        own = tuple(name for name in self.wanted if name not in ("CPU", "GPU"))
        return own if self.accelerator is None else (*own, f"accelerator_type:{self.accelerator}")

    def options(self, avoided: Collection[str] = (), name: str = "") -> dict[str, Any]:
        """Return how its actors are made. Ray restarts none by itself: see `hpo.run.on_ray`.

        Args:
            avoided: ids of nodes that none is placed on.
            name: of the worker, for its log.
        """
        own = {name: n for name, n in self.wanted.items() if name not in ("CPU", "GPU")}
        threads = str(int(self.wanted["CPU"]))
        return {
            "num_cpus": self.wanted["CPU"],
            "num_gpus": self.wanted["GPU"],
            "resources": own or None,
            "accelerator_type": self.accelerator,
            "label_selector": {_NODE_ID: f"!in({','.join(sorted(avoided))})"} if avoided else None,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {
                "env_vars": {"OMP_NUM_THREADS": threads, **for_workers(), **worker_environment(name)}
            },
        }

    def __str__(self) -> str:
        wanted = ", ".join(f"{n:g} {name}" for name, n in self.wanted.items() if n)
        kind = f", accelerator {self.accelerator}" if self.accelerator else ""
        return f"{self.workers} of {wanted}{kind} each"


Room = Callable[[Mapping[str, float]], bool]
"""Whether some node has so much of all these resources."""


def kinds_of(spec: BenchSpec, run: Run, room: Room) -> tuple[WorkerKind, ...]:
    """Return the kinds of workers of a study, the main one first.

    ``device: auto`` means a GPU where a node that a worker may be placed on has one now, by `room`.
    """
    on_gpu = run.device == "cuda" or (run.device == "auto" and room({"GPU": run.gpus_per_worker}))
    wanted = {"CPU": float(run.threads), "GPU": run.gpus_per_worker if on_gpu else 0.0}
    main = WorkerKind(MAIN, spec, run.workers, wanted)
    return (main, *(_kind(spec, run, stage, lane, room) for stage, lane in sorted(run.lanes.items())))


def _kind(spec: BenchSpec, run: Run, stage: str, lane: Lane, room: Room) -> WorkerKind:
    threads = run.threads if lane.threads is None else lane.threads
    auto = lane.device == "auto" and (lane.accelerator is not None or room({"GPU": 1.0, **lane.resources}))
    on_gpu = auto or lane.device == "cuda"
    document = dict(spec.document)
    document["run"] = {
        **document.get("run", {}),
        "workers": lane.workers,
        "device": lane.device,
        "threads": threads,
        "gpus_per_worker": 1.0,  # what is timed has its GPU to itself
    }
    wanted = {"CPU": float(threads), "GPU": float(on_gpu), **lane.resources}
    return WorkerKind(stage, replace(spec, document=document), lane.workers, wanted, lane.accelerator)
