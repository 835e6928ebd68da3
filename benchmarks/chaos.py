"""Is anything lost when coordinators and workers are killed at random moments?

A study of the reference model (briefly trained), two Ray workers, Sobol, healing in half the trials. Its
coordinator, the real command in a process of its own, is killed with SIGKILL at random moments and
resumed each time; then workers are killed under a running coordinator. After every kill, and at the end:
every trial once completed is still there, unchanged; each was completed once; the budget is met
exactly; nothing is stuck in `running`. Seeded; the moments depend on the machine's speed.

    python -m benchmarks.chaos [coordinator kills] [worker kills] [seed]
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from hpo.errors import NotFound
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.trial import Trial, TrialState

STUDY = """\
version: 1
name: chaos
question: Is anything lost when processes are killed at random moments?
model: {source: reference}
data:
  calibration: {reference: true, tokens: 4096}
  evaluation: {reference: true, tokens: 8192}
objectives:
  - {metric: perplexity}
  - {metric: weight_memory}
  - {metric: energy, allow_modelled: true}
space:
  factorise: {type: choice, choices: [svd, whitened_svd]}
  factorise.keep_ratio: {type: float, low: 0.1, high: 0.95}
  heal: {type: choice, choices: [none, fine_tune]}
  heal.steps: {type: int, low: 2, high: 20, when: {heal: fine_tune}}
search: {sampler: sobol, seed: 0}
budget: {trials: 1}
run: {runner: ray, workers: 2, attempts: 50}
"""


@dataclass
class Tally:
    """What the kills did."""

    coordinator_kills: int = 0
    worker_kills: int = 0
    completed: int = 0
    requeued: int = 0
    most_attempts: int = 1


class Chaos:
    """One run of it, in a directory of its own."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory, self._random = directory, random.Random(seed)
        self._url = f"sqlite:///{directory}/chaos.db"
        self._known: dict[int, Trial] = {}
        self._seen, self._started = 0, 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self.tally = Tally()
        (directory / "chaos.yaml").write_text(STUDY)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        hpo = str(Path(sys.executable).with_name("hpo"))
        settings = {
            **os.environ,
            "HPO_STORAGE": self._url,
            "HPO_REFERENCE_STEPS": "20",
            "OMP_NUM_THREADS": "1",
            "HPO_CACHE": str(self._directory / "cache"),
        }
        log = (self._directory / "log.txt").open("ab")
        self._started = time.time()
        self._process = subprocess.Popen(
            [hpo, *arguments],
            cwd=self._directory,
            env=settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        return self._process

    def end(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def check(self) -> None:
        """Hold every trial that was once completed against what the store has now."""
        with Store.open(self._url, read_only=True) as store:
            trials = {t.number: t for t in store.trials("chaos")}
            events = store.events("chaos")
        done = [e.trial for e in events if e.kind is EventKind.COMPLETED]
        self._seen = events[-1].id
        assert len(done) == len(set(done)), "a trial was completed twice"
        for number, trial in self._known.items():
            assert trials.get(number) == trial, f"trial {number} was lost or changed"
        self._known = {n: t for n, t in trials.items() if t.state is TrialState.COMPLETED}
        # A running coordinator may complete a trial between the two readings, events last.
        assert set(self._known) <= set(done), "a completed trial has no event"
        self.tally.completed = len(self._known)
        self.tally.most_attempts = max((t.attempt for t in trials.values()), default=1)

    def wait_for_trial(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until something new is running, so that a kill hits work and not imports."""
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            if Path(f"{self._directory}/chaos.db").exists() and self._has_running():
                return
            time.sleep(0.1)
        log = (self._directory / "log.txt").read_text()[-2000:]
        assert process.poll() is None, f"the coordinator ended by itself: {process.returncode}\n{log}"

    def _has_running(self) -> bool:
        try:
            return self._looks_alive()
        except NotFound:  # the store's file is there, its tables not yet
            return False

    def _looks_alive(self) -> bool:
        with Store.open(self._url, read_only=True) as store:
            if not any(s.name == "chaos" and s.state is StudyState.RUNNING for s in store.studies()):
                return False
            running = any(t.state is TrialState.RUNNING for t in store.trials("chaos"))
            started = any(
                e.kind is EventKind.STARTED and e.at > self._started
                for e in store.events("chaos", after=self._seen)
            )
        return running and started

    def kill_coordinators(self, kills: int) -> None:
        """Kill it, look, resume it; a budget large enough that it never ends by itself."""
        process = self.start("launch", "chaos.yaml", "--trials", str(100_000))
        for _ in range(kills):
            self.wait_for_trial(process)
            time.sleep(self._random.uniform(0.0, 4.0))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            self.tally.coordinator_kills += 1
            self.check()
            process = self.start("resume", "chaos")
        self.wait_for_trial(process)
        self.drain(process)

    def kill_workers(self, kills: int) -> None:
        """Kill worker processes under one coordinator."""
        process = self.start("resume", "chaos")
        while self.tally.worker_kills < kills:
            self.wait_for_trial(process)
            time.sleep(self._random.uniform(0.0, 4.0))
            workers = [
                p for p in psutil.Process(process.pid).children(recursive=True) if "ray::Worker" in _name(p)
            ]
            if workers:
                self._random.choice(workers).kill()
                self.tally.worker_kills += 1
            time.sleep(1.0)
            self.check()
        self.drain(process)

    def drain(self, process: subprocess.Popen[bytes]) -> None:
        """Press Ctrl-C once, wait for the end, and look. Started from a background shell it inherits SIGINT
        ignored, so nothing is heard before the coordinator listens for it."""
        self.wait_for_trial(process)
        os.kill(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=240)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the study does not drain:\n{(self._directory / 'log.txt').read_text()[-2000:]}"
            ) from None
        self.check()

    def finish(self) -> int:
        """Give it a budget just above what it has, let it end, and look once more; return the budget."""
        with Store.open(self._url, read_only=True) as store:
            asked = len(store.trials("chaos"))
        budget = asked + 4
        # The budget may only be lowered by hand: the study was launched with one it could never use.
        self._lower_budget(budget)
        process = self.start("resume", "chaos")
        assert process.wait(timeout=600) == 0, "the last resume failed"
        self.check()
        with Store.open(self._url, read_only=True) as store:
            trials = store.trials("chaos")
            assert store.study("chaos").state is StudyState.FINISHED
            self.tally.requeued = sum(e.kind is EventKind.REQUEUED for e in store.events("chaos"))
        assert [t.number for t in trials] == list(range(budget)), "the budget is not met exactly"
        assert all(t.state is TrialState.COMPLETED for t in trials), "a trial is stuck or failed"
        return budget

    def _lower_budget(self, trials: int) -> None:
        with Store.open(self._url) as store:
            lease = store.acquire("chaos", "chaos", 60, time.time(), replacing=_owner(store))
            study = store.study("chaos").study
            budget = study.budget.model_copy(update={"trials": trials})
            store.replace_study(lease, study.model_copy(update={"budget": budget}), "chaos", time.time())
            store.release(lease, time.time())


def _owner(store: Store) -> str | None:
    holder = store.holder("chaos")
    return None if holder is None else holder.owner


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def run(coordinators: int = 20, workers: int = 20, seed: int = 0) -> tuple[Tally, int]:
    """Return the tally and the budget that was met."""
    with tempfile.TemporaryDirectory(prefix="hpo-chaos-") as directory:
        chaos = Chaos(Path(directory), seed)
        try:
            chaos.kill_coordinators(coordinators)
            chaos.kill_workers(workers)
            return chaos.tally, chaos.finish()
        finally:
            chaos.end()


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]] if __name__ == "__main__" else []
    tally, budget = run(*given)
    print(
        "| coordinators killed | workers killed | trials asked = completed | requeued | most attempts | "
        "lost | counted twice | stuck |\n|---|---|---|---|---|---|---|---|"
    )
    print(
        f"| {tally.coordinator_kills} | {tally.worker_kills} | {budget} | {tally.requeued} | "
        f"{tally.most_attempts} | 0 | 0 | 0 |"
    )


if __name__ == "__main__":
    main()
