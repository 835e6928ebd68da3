"""A worker's place: its actor of the moment, and what that is doing."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import ActorHandle

from hpo.run.bench import Setup
from hpo.run.job import Job
from hpo.run.ray_depot import Shipment
from hpo.run.ray_lane import WorkerKind
from hpo.run.ray_pulse import Pulse
from hpo.run.ray_worker import ASIDE, Handed, Worker


@dataclass
class Slot:
    """One of the workers that a study may have. Its actor is replaced when it dies."""

    name: str
    kind: WorkerKind
    actor: ActorHandle
    pulse: Pulse
    ready: Any
    """Reference to the actor's setup while it is starting, or has no node yet; None once it is ready."""
    setup: Setup | None = None
    job: Job | None = None
    task: Any = None
    """Reference to what it is doing for the job; None between two stages."""
    since: float = 0.0
    """When the task began, by the monotonic clock."""
    is_leaving: bool = False
    """It has said of a stage that it was told to end."""
    deaths: int = 0
    """How many actors in a row have died here before they were ready."""

    @classmethod
    def of(
        cls,
        kind: WorkerKind,
        name: str,
        most_s: float,
        deaths: int = 0,
        avoided: Collection[str] = (),
        shipment: Shipment | None = None,
    ) -> "Slot":
        """Ask for an actor; it is placed when there is room for it on a node that is not `avoided`."""
        remote = ray.remote(concurrency_groups={ASIDE: 1})(Worker)
        actor = remote.options(**kind.options(avoided, name)).remote(kind.spec, shipment)
        return cls(
            name, kind, actor, Pulse(actor, time.monotonic(), most_s), actor.setup.remote(), deaths=deaths
        )

    @property
    def is_free(self) -> bool:
        return self.ready is None and self.job is None and not self.is_going

    @property
    def is_going(self) -> bool:
        """Whether it was told to end, and takes no more jobs."""
        return self.is_leaving or (self.pulse.last is not None and self.pulse.last.going)

    @property
    def is_placed(self) -> bool:
        """Whether it is known to run on some node, if only to start there."""
        return self.ready is None or self.pulse.last is not None

    @property
    def node(self) -> str:
        """Id of the node that it is on, in hex; empty while that is not known."""
        return "" if self.pulse.last is None else self.pulse.last.node

    def begin(self, job: Job, stage: str) -> None:
        self._doing(job, self.actor.run.remote(job.to_mapping(), stage))

    def begin_handed(self, job: Job, stage: str, handed: Handed, carried: Any) -> None:
        """Go on with a model that another worker has handed over; `carried` refers to its bytes."""
        self._doing(job, self.actor.take.remote(job.to_mapping(), stage, handed, carried))

    def hand_over(self, job: Job) -> Any:
        """Have the model packed for another worker; return the reference to its bytes."""
        told, carried = self.actor.carry.options(num_returns=2).remote(job.to_mapping())
        self._doing(job, told)
        return carried

    def _doing(self, job: Job, task: Any) -> None:
        self.job, self.task, self.since = job, task, time.monotonic()

    def forget(self) -> None:
        """Be free of the job."""
        self.actor.forget.remote()
        self.job = self.task = None
