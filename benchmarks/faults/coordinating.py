"""The coordinator of a study under faults, in a process of its own, to be killed and started again.

    python -m benchmarks.faults.coordinating '{"url": ..., "address": ..., ...}'

Its clock may be told to jump: what the file ``clock`` holds is added to every second it reads. Leases are
short, so that what takes half a minute in a cluster takes seconds here.
"""

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from benchmarks.faults import toy
from benchmarks.faults.in_order import Immediate, InOrderRunner
from hpo.errors import NotFound
from hpo.run import coordinator as coordinating
from hpo.run import lease as leasing
from hpo.run.bench import BenchSpec
from hpo.run.coordinator import Coordinator
from hpo.run.runner import Runner
from hpo.store.store import Store
from hpo.store.values import Request

LEASE_S = 4.0
"""Of the coordinator."""


@dataclass(frozen=True)
class Orders:
    """What a coordinator is told."""

    url: str
    address: str
    """Of the Ray cluster; empty does all in this process, where nothing fails."""
    clock: str
    """A file with the seconds by which its clock is wrong."""
    trials: int
    workers: int
    seed: int
    sampler: str
    stage_s: float
    in_order: bool
    """Tell of trials in their order, so that what is found does not depend on timing."""
    patience_s: float = 30.0
    """For how long it waits for a database that is away."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))


def wrong_clock(path: Path) -> None:
    """Let the clock of this process be wrong by what a file says."""
    real = time.time

    def jumping() -> float:
        try:
            return real() + float(path.read_text() or 0.0)
        except (OSError, ValueError):
            return real()

    time.time = jumping  # the one place where every module reads the time


def run(orders: Orders) -> int:
    for module in (coordinating, leasing):
        vars(module)["LEASE_S"] = LEASE_S
    wrong_clock(Path(orders.clock))
    study = toy.study(orders.trials, orders.workers, orders.seed, orders.sampler)
    journal = hashlib.sha256(f"{orders.url} {study.name}".encode()).hexdigest()[:16]
    spec = BenchSpec("benchmarks.faults.toy:ToyBench", {"stage_s": orders.stage_s}, journal=journal)
    with Store.open(orders.url, patience_s=orders.patience_s) as store:
        try:
            store.study(study.name)
        except NotFound:
            store.create_study(study, {}, time.time())
        runner = _runner(orders, spec)
        try:
            setup = runner.start()
            lease = leasing.take_lease(store, study.name)
            store.request(study.name, Request.NONE, time.time())
            found = Coordinator(store, study, runner, setup, toy.problem(study), lease, _unheard)
            return 0 if found.run().state == "finished" else 1
        finally:
            runner.close()


def _runner(orders: Orders, spec: BenchSpec) -> Runner:
    run = toy.study(orders.trials, orders.workers, orders.seed, orders.sampler).run
    if not orders.address:
        return InOrderRunner(Immediate(spec), orders.workers)
    from hpo.run.on_ray import RayRunner

    inner = RayRunner(spec, run, orders.address)
    return InOrderRunner(inner, orders.workers) if orders.in_order else inner


def _unheard(*_: object) -> None:
    """Nobody listens."""


def main() -> None:
    sys.exit(run(Orders.from_json(sys.argv[1])))


if __name__ == "__main__":
    main()
