"""What does a trial cost beyond its own work, on our Ray runner and on Ray Tune?

Trials of four stages without work, one worker, Sobol candidates. Ours: the whole coordinator with a
SQLite store, every stage an event in it. Peer: `ray.tune.Tuner` with a class trainable of four reports,
`reuse_actors`, one trial at a time. The time of a trial is the time between two completions.

    python -m benchmarks.bench_runner
"""

import contextlib
import logging
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import ray
from ray import tune

from benchmarks import idle
from hpo.run.bench import BenchSpec
from hpo.run.coordinator import Coordinator
from hpo.run.lease import owner_name
from hpo.run.on_ray import RayRunner
from hpo.run.ray_cluster import connect
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import Trial

TRIALS = 200
TUNE_TRIALS = 60


@dataclass(frozen=True)
class Row:
    """Milliseconds a trial, for one runner."""

    runner: str
    trials: int
    low_ms: float
    median_ms: float
    high_ms: float


def ours(trials: int = TRIALS) -> list[float]:
    """Return the times of completions, in seconds."""
    study, ends = idle.study(trials), []

    def listen(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.COMPLETED:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as directory, Store.open(f"sqlite:///{directory}/idle.db") as store:
        runner = RayRunner(BenchSpec("benchmarks.idle:IdleBench", {}), study.run)
        setup = runner.start()
        store.create_study(study, {}, time.time())
        lease = store.acquire(study.name, owner_name(), 600, time.time())
        Coordinator(store, study, runner, setup, idle.problem(study), lease, listen).run()
        runner.close()
    return ends


class IdleTrainable(tune.Trainable):  # type: ignore[misc]  # Ray ships no types for it
    """Four reports without work."""

    def setup(self, config: dict[str, Any]) -> None:
        self._stage = 0

    def step(self) -> dict[str, Any]:
        self._stage += 1
        return {"macs": 1.0, "done": self._stage == len(idle.STAGES)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep; without this method a paused trial fails."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing to restore."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._stage = 0
        return True


class _Ends(tune.Callback):  # type: ignore[misc]  # Ray ships no types for it
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.times.append(time.perf_counter())


def tunes(trials: int = TUNE_TRIALS) -> list[float]:
    """Return the times of completions of Ray Tune, in seconds."""
    ends = _Ends()
    with tempfile.TemporaryDirectory() as directory:
        tuner = tune.Tuner(
            IdleTrainable,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                metric="macs", mode="min", num_samples=trials, max_concurrent_trials=1, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=str(Path(directory)), callbacks=[ends], verbose=0),
        )
        with contextlib.redirect_stdout(sys.stderr):  # Tune draws boxes even when told to be silent
            tuner.fit()
    return ends.times


def row(name: str, ends: list[float]) -> Row:
    gaps = [1000 * (b - a) for a, b in pairwise(ends)]
    low, _, high = quantiles(gaps, n=4)
    return Row(name, len(ends), low, median(gaps), high)


def run() -> list[Row]:
    """Return a row a runner, measured one after the other in one Ray session."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    connect(None, workers=1, threads=1)
    rows = [row("this package", ours()), row("ray.tune.Tuner", tunes()), row("this package, again", ours())]
    ray.shutdown()
    return rows


def main() -> None:
    rows = run()
    print("| runner | trials | quartile ms | median ms a trial | quartile ms | against Tune |")
    print("|---|---|---|---|---|---|")
    peer = next(r.median_ms for r in rows if "Tuner" in r.runner)
    for r in rows:
        times = f"{r.low_ms:.1f} | {r.median_ms:.1f} | {r.high_ms:.1f}"
        print(f"| {r.runner} | {r.trials} | {times} | {r.median_ms / peer:.3f} |")


if __name__ == "__main__":
    main()
