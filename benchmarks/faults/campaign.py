"""One study under faults: how it is driven, and what must hold of it all the while and in the end."""

import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults import toy
from benchmarks.faults.coordinating import Orders
from benchmarks.faults.databases import Database
from benchmarks.faults.injecting import FAULTS, possible
from benchmarks.faults.nodes import Nodes
from hpo.errors import HpoError
from hpo.store.store import Store
from hpo.store.values import Event, EventKind
from hpo.trial import Trial, TrialState

WORKERS = 4
_TRIALS = 32
_STAGE_S = 0.12
_PATIENCE_S = 240.0
_SETTLED_S = 45.0
"""From the end of the last fault until whatever ran then must be over: a lease, and two starts of processes
on a machine that is busy."""


@dataclass
class Told:
    """What came of a run."""

    seed: int
    database: str
    sampler: str
    in_order: bool
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    coordinators: int = 0
    """How many were started."""
    requeued: int = 0
    adopted: int = 0
    settled_s: float = 0.0
    """From the end of the last fault until nothing was left of what ran then."""
    again_s: list[float] = field(default_factory=list)
    """From the news that a trial's worker is gone to when it ran again, for each that was lost; a coordinator
    that was itself away meanwhile counts too."""
    wrong: list[str] = field(default_factory=list)
    """What should have held and did not."""

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)


class Campaign:
    """A run of one seed. It is the stage on which faults act."""

    def __init__(self, seed: int, nodes: Nodes, database: Database) -> None:
        self.nodes, self.database = nodes, database
        self._chance = random.Random(seed)
        self._directory = Path(tempfile.mkdtemp(prefix="hpo-faults-"))
        self.clock = self._directory / "clock"
        self._orders = Orders(
            url=database.url(seed),
            address=nodes.address,
            clock=str(self.clock),
            trials=_TRIALS,
            workers=WORKERS,
            seed=seed,
            sampler=self._chance.choice(["sobol", "tpe"]),
            stage_s=_STAGE_S,
            in_order=seed % 2 == 0,
        )
        self.told = Told(seed, database.name, self._orders.sampler, self._orders.in_order)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._starting = threading.Lock()
        self._known: dict[int, Trial] = {}

    # What faults act on

    def coordinator(self) -> psutil.Process | None:
        with suppress(psutil.Error):
            process = self._processes[-1]
            return psutil.Process(process.pid) if process.poll() is None else None
        return None

    def rival(self) -> None:
        with self._starting:
            self._start(self._orders)

    # Driving

    def run(self) -> Told:
        """Run the study to its end under faults; return what came of it."""
        began = time.monotonic()
        try:
            self._drive(began)
            self._judge()
        finally:
            self.told.seconds = time.monotonic() - began
            for process in self._processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
        return self.told

    def _drive(self, began: float) -> None:
        with self._starting:
            self._start(self._orders)
        striking = threading.Thread(target=self._strike, daemon=True)
        striking.start()
        ended_at, running = 0.0, {}
        while time.monotonic() - began < _PATIENCE_S:
            time.sleep(0.2)
            self._look()
            if striking.is_alive():
                running = self._running()
            elif not ended_at:
                ended_at = time.monotonic()
                running = self._running() or running
            elif not self.told.settled_s and not (running.items() & self._running().items()):
                self.told.settled_s = time.monotonic() - ended_at
            if self._tend() and not striking.is_alive():
                break
        else:
            self.told.wrong.append(f"not finished after {_PATIENCE_S:g} s\n{self._log()}")
        striking.join()
        self.database.give_back()
        if self.told.settled_s > _SETTLED_S:
            self.told.wrong.append(f"stuck: settled only {self.told.settled_s:.0f} s after the last fault")

    def _strike(self) -> None:
        able = possible(self.nodes, self.database)
        for name in self._chance.sample(able, self._chance.randint(1, 3)):
            self._wait_for_work()
            time.sleep(self._chance.uniform(0.0, 2.0))
            self.told.faults.append(name)
            FAULTS[name](self, self._chance)

    def _wait_for_work(self) -> None:
        """Wait until something runs, so that faults hit work and not imports; no longer than it takes."""
        end = time.monotonic() + 30
        while time.monotonic() < end and not self._running():
            time.sleep(0.1)

    def _start(self, orders: Orders) -> None:
        log = (self._directory / "log").open("ab")
        command = [sys.executable, "-m", "benchmarks.faults.coordinating", orders.to_json()]
        process = subprocess.Popen(command, env=self.nodes.settings, stdout=log, stderr=log)
        self._processes.append(process)
        self.told.coordinators += 1

    def _tend(self) -> bool:
        """Start a coordinator where none is left; return whether the study is finished."""
        with self._starting:
            if any(process.poll() == 0 for process in self._processes):
                return True
            if all(process.poll() is not None for process in self._processes):
                time.sleep(0.3)
                self._start(self._orders)
        return False

    # Looking

    def _trials(self) -> tuple[Trial, ...] | None:
        """Return the trials, None while they cannot be read."""
        try:
            with Store.open(self._orders.url, read_only=True) as store:
                return store.trials(toy.NAME)
        except HpoError:
            return None

    def _running(self) -> dict[int, int]:
        """Return the attempt of each running trial."""
        return {t.number: t.attempt for t in self._trials() or () if t.state is TrialState.RUNNING}

    def _look(self) -> None:
        """Hold every trial that was once completed against what the store has now."""
        found = self._trials()
        if found is None:
            return
        trials = {trial.number: trial for trial in found}
        for number, trial in self._known.items():
            if trials.get(number) != trial:
                self.told.wrong.append(f"trial {number} was completed, and is lost or changed")
        self._known = {n: t for n, t in trials.items() if t.state is TrialState.COMPLETED}

    def _log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-3000:]

    def _judge(self) -> None:
        wrong = self.told.wrong
        with Store.open(self._orders.url, read_only=True) as store:
            trials, events = store.trials(toy.NAME), store.events(toy.NAME)
            wrong += [str(fault) for fault in store.faults(time.time())]
            front = store.front(toy.NAME)
        if [t.number for t in trials] != list(range(_TRIALS)):
            wrong.append(f"the budget is {_TRIALS}, and there are {len(trials)} trials")
        wrong += [f"trial {t.number} is {t.state}: {t.message}" for t in trials if t.state != "completed"]
        done = [event.trial for event in events if event.kind is EventKind.COMPLETED]
        wrong += [f"trial {n} was completed {done.count(n)} times" for n in set(done) if done.count(n) > 1]
        for trial in trials:
            values = (trial.value("perplexity"), trial.value("kl_to_dense"))
            if trial.state == "completed" and values != toy.outcome(trial.candidate):
                wrong.append(f"trial {trial.number} has the figures of another: {values}")
        self.told.again_s = _again(events)
        self.told.requeued = sum(event.kind is EventKind.REQUEUED for event in events)
        self.told.adopted = sum(
            bool(e.payload.get("adopted")) for e in events if e.kind is EventKind.COMPLETED
        )
        if self._orders.in_order and front is not None:
            members = {trials[n].candidate for n in front.members}
            if [t.candidate for t in trials] != [t.candidate for t in self._undisturbed]:
                wrong.append("other candidates were tried than without faults")
            elif members != self._undisturbed_front:
                wrong.append("the front is another one than without faults")

    @cached_property
    def _undisturbed(self) -> tuple[Trial, ...]:
        """The trials of the same study where nothing fails."""
        url = f"sqlite:///{self._directory}/undisturbed.db"
        orders = replace(self._orders, url=url, address="", stage_s=0.0, clock=str(self._directory / "right"))
        command = [sys.executable, "-m", "benchmarks.faults.coordinating", orders.to_json()]
        subprocess.run(command, env=self.nodes.settings, check=True, capture_output=True)
        with Store.open(url, read_only=True) as store:
            self._undisturbed_members = store.front(toy.NAME)
            return store.trials(toy.NAME)

    @property
    def _undisturbed_front(self) -> set[Any]:
        trials = self._undisturbed
        assert self._undisturbed_members is not None
        return {trials[n].candidate for n in self._undisturbed_members.members}


def _again(events: Sequence[Event]) -> list[float]:
    """Return, for each trial that lost its worker, the seconds until it was started again."""
    lost: dict[int | None, float] = {}
    found = []
    for event in events:
        if event.kind is EventKind.LOST:
            lost[event.trial] = event.at
        elif event.kind is EventKind.STARTED and event.trial in lost:
            found.append(event.at - lost.pop(event.trial))
    return found
