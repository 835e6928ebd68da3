"""The protocol of a runner: everything a stranger needs to run jobs somewhere else.

A job is pulled stage by stage: the coordinator submits one stage, hears its report, and decides
whether to submit the next. Stopping a trial early is simply not asking for more of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hpo.run.bench import Setup
from hpo.run.job import Job, StageResult


@dataclass(frozen=True)
class Report:
    """News of a job: the result of a stage, or that its worker is gone."""

    job: Job
    result: StageResult | None
    lost: str = ""
    """Why the worker is gone; empty while it lives."""
    timed_out: bool = False
    """The worker was ended because a stage took too long."""


class Runner(Protocol):
    """Runs jobs on workers. Made with a `BenchSpec`, the study's `Run` and an address."""

    concurrent: bool
    """Whether jobs run while the caller goes on. If so, proposals are made meanwhile, in a thread and some
    ahead of need; a runner whose `wait` does the work itself says False: nothing could go on there."""

    def start(self) -> Setup:
        """Start the workers and wait until one is ready.

        Raises:
            HpoError: no worker could be made ready; the message is the worker's own.
        """
        ...

    def free(self) -> int:
        """Return how many new jobs would start at once."""
        ...

    def submit(self, job: Job, stage: str) -> str:
        """Begin a stage without waiting; return the worker's name. Later stages go to the same worker, or to
        one of the lane that the study names for them."""
        ...

    def release(self, job: Job) -> None:
        """Say that no further stage of a job follows; its worker is free."""
        ...

    def wait(self, timeout_s: float) -> list[Report]:
        """Return what has happened, waiting at most `timeout_s` for the first news."""
        ...

    def alive(self) -> dict[int, float]:
        """Return, by the number of each running job's trial, the seconds since its worker was heard of."""
        return {}

    def unheard(self) -> list[tuple[Job, StageResult]]:
        """Return what ready workers' nodes have journalled, oldest first, each result once."""
        return []

    def settle(self, jobs: Sequence[Job]) -> None:
        """Drop what the journals of all nodes hold of these jobs: it is stored, or of no use."""
        return

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        ...
