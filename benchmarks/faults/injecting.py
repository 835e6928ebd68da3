"""The faults: each strikes at a moment of its own choosing and is over when its function returns."""

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.faults.coordinating import LEASE_S
from benchmarks.faults.databases import Database, File
from benchmarks.faults.nodes import Nodes
from benchmarks.faults.toy import WORKER_LEASE_S


class Stage(Protocol):
    """What a fault may lay hands on."""

    nodes: Nodes
    database: Database
    clock: Path

    def coordinator(self) -> psutil.Process | None:
        """Return the coordinator's process, None while there is none."""
        ...

    def rival(self) -> None:
        """Start another coordinator beside the one there is, as a supervisor does that takes it for dead; the
        old one has to notice and end."""
        ...


Fault = Callable[[Stage, random.Random], None]


def kill_coordinator(stage: Stage, chance: random.Random) -> None:
    if process := stage.coordinator():
        with suppress(psutil.Error):
            process.kill()


def stop_coordinator(stage: Stage, chance: random.Random) -> None:
    """Suspend the coordinator beyond its lease, let another take over, and wake the first up again."""
    process = stage.coordinator()
    if process is None:
        return
    with suppress(psutil.Error):
        process.suspend()
        time.sleep(LEASE_S + chance.uniform(0.5, 2.0))
        stage.rival()
        time.sleep(chance.uniform(2.0, 6.0))
        process.resume()


def kill_worker(stage: Stage, chance: random.Random) -> None:
    if workers := stage.nodes.actors():
        with suppress(psutil.Error):
            chance.choice(workers).kill()


def stop_worker(stage: Stage, chance: random.Random) -> None:
    """Suspend a worker, for less than its lease or for longer."""
    if workers := stage.nodes.actors():
        worker = chance.choice(workers)
        with suppress(psutil.Error):
            worker.suspend()
            time.sleep(chance.choice([1.0, WORKER_LEASE_S + 2.0]))
            worker.resume()


def preempt_worker(stage: Stage, chance: random.Random) -> None:
    if workers := stage.nodes.actors():
        with suppress(psutil.Error):
            chance.choice(workers).send_signal(signal.SIGTERM)


def kill_node(stage: Stage, chance: random.Random) -> None:
    """Take the second node's power away, and bring it back after a while."""
    stage.nodes.kill_second()
    time.sleep(chance.uniform(0.0, 3.0))
    stage.nodes.mend()


def cut_network(stage: Stage, chance: random.Random) -> None:
    """Cut the wire between the nodes, for a blink or for longer than leases and health checks last."""
    stage.nodes.cut_wire()
    time.sleep(chance.choice([1.0, 10.0]))
    stage.nodes.mend()


def lose_database(stage: Stage, chance: random.Random) -> None:
    """Kill the database server, or let the disk run full, and put it right after a few seconds."""
    stage.database.take_away()
    time.sleep(chance.uniform(0.5, 5.0))
    stage.database.give_back()


def jump_clock(stage: Stage, chance: random.Random) -> None:
    """Set the coordinator's clock wrong, by seconds or by a day, forwards or back."""
    offset = chance.choice([-86400.0, -40.0, -5.0, 5.0, 40.0, 86400.0])
    new = stage.clock.with_suffix(".new")
    new.write_text(str(offset))
    os.replace(new, stage.clock)


FAULTS: Mapping[str, Fault] = {
    "coordinator killed": kill_coordinator,
    "coordinator suspended": stop_coordinator,
    "worker killed": kill_worker,
    "worker suspended": stop_worker,
    "worker preempted": preempt_worker,
    "node killed": kill_node,
    "network cut": cut_network,
    "database lost": lose_database,
    "clock jumped": jump_clock,
}


def possible(nodes: Nodes, database: Database) -> list[str]:
    """Return the faults that can be had here: some take root."""
    missing = set() if nodes.has_wire else {"network cut"}
    if isinstance(database, File) and not database.can_run_full:
        missing.add("database lost")
    return [name for name in FAULTS if name not in missing]
