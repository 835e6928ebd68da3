"""How soon does a coordinator ask again, in how much memory, and how many trials can it see to?

The whole coordinator with a SQLite store, on DTLZ2 with two measured and two exact objectives. *Restart*:
from when a new coordinator is made, imports done, to the first trial that it asks for, in a study of so many
trials. *Memory*: the most that its process has taken once it has asked for 16 trials more, each measured in
a process of its own. *Throughput*: trials that last no time at all, on workers simulated in its own process;
what is left is what a trial costs the coordinator, whose one thread is the limit of what one study can use.

    python -m benchmarks.bench_coordinator
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench_idle import Case, SleepingRunner, study_of, without_anchors
from benchmarks.search.classic import dtlz2
from benchmarks.search.simulation import Simulation
from hpo.metric import Source, metric
from hpo.run.coordinator import Coordinator
from hpo.run.lease import owner_name
from hpo.search.generate import sobol
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import Measurement, StageTime, Trial

RESTARTS = (("sobol", 1_000), ("tpe", 1_000), ("bayesian", 1_000), ("sobol", 10_000), ("tpe", 10_000))
_MORE = 16


@dataclass(frozen=True)
class Found:
    """What one coordinator did."""

    sampler: str
    trials: int
    ready_s: float
    """Until it has read its study."""
    asked_s: float
    """Until it has asked for the first new trial."""
    memory_mib: float


def fill(store: Store, case: Case, truth: Simulation, trials: int) -> None:
    """Store a study with so many completed trials."""
    study = study_of(case, truth)
    store.create_study(study, {}, time.time())
    lease = store.acquire(study.name, owner_name(), 600, time.time())
    candidates = list(dict.fromkeys(sobol(truth.problem.space, trials, seed=1)))
    plans = truth.problem.preview(candidates).plans
    for number, (candidate, plan) in enumerate(zip(candidates, plans, strict=True)):
        trial = Trial(number, candidate, "sobol", plan, created_at=1.0)
        store.add_trial(lease, trial, (), 1.0)
        done = trial.started("w", 2.0).advanced(StageTime("all", 3.0), measured(truth, trial)).completed(5.0)
        store.save_trial(lease, done, EventKind.COMPLETED, 5.0)
    store.release(lease, time.time())


def measured(truth: Simulation, trial: Trial) -> tuple[Measurement, ...]:
    values = truth.truth(trial.candidate).values
    return tuple(
        Measurement(name, value, metric(name).unit, Source.MEASURED, device="sleeping")
        for name, value in dict(values).items()  # type: ignore[arg-type]  # no trial of DTLZ2 fails
    )


def restart(url: str, sampler: str, trials: int) -> Found:
    """Take a stored study over in this process, and ask for some more trials."""
    truth = dtlz2()
    case = Case(sampler, 8, 0.05, trials + _MORE)
    with Store.open(url) as store:
        study = study_of(case, truth)
        lease = store.acquire(study.name, owner_name(), 600, time.time())
        store.replace_study(lease, study, "more trials", time.time())
        problem = without_anchors(truth.problem)
        runner = SleepingRunner(truth, case.workers, case.trial_s)
        asked: list[float] = []

        def listen(kind: EventKind, trial: Trial) -> None:
            if kind is EventKind.ASKED:
                asked.append(time.perf_counter())

        _import(sampler)
        begun = time.perf_counter()
        coordinator = Coordinator(store, study, runner, runner.start(), problem, lease, listen)
        ready = time.perf_counter()
        coordinator.run()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Found(sampler, trials, ready - begun, asked[0] - begun, memory)


def _import(sampler: str) -> None:
    """Import what the sampler will need, which a restart pays for once, whatever the study."""
    from hpo import registry
    from hpo.search.sampler import Preparing

    made = registry.load("sampler", sampler)(initial=8)
    if isinstance(made, Preparing):
        made.prepare()


def throughput(workers: int, trials: int) -> float:
    """Return trials a second where trials last no time."""
    truth = dtlz2()
    case = Case("sobol", workers, 0.0, trials)
    with tempfile.TemporaryDirectory() as directory, Store.open(f"sqlite:///{directory}/idle.db") as store:
        study, runner = study_of(case, truth), SleepingRunner(truth, workers, 0.0)
        store.create_study(study, {}, time.time())
        lease = store.acquire(study.name, owner_name(), 600, time.time())
        problem = without_anchors(truth.problem)
        began = time.perf_counter()
        Coordinator(store, study, runner, runner.start(), problem, lease, lambda kind, trial: None).run()
    return trials / (time.perf_counter() - began)


def restarts(cases: Sequence[tuple[str, int]]) -> list[Found]:
    found = []
    with tempfile.TemporaryDirectory() as directory:
        for sampler, trials in cases:
            path = Path(directory) / f"{sampler}-{trials}.db"
            with Store.open(f"sqlite:///{path}") as store:
                fill(store, Case(sampler, 8, 0.05, trials), dtlz2(), trials)
            command = [sys.executable, "-m", __spec__.name, f"sqlite:///{path}", sampler, str(trials)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(Found(**json.loads(done.stdout)))
    return found


def main() -> None:
    print("| sampler | trials | read after, s | asked after, s | memory, MiB |\n|---|---|---|---|---|")
    for row in restarts(RESTARTS):
        print(
            f"| {row.sampler} | {row.trials:,} | {row.ready_s:.2f} | {row.asked_s:.2f} "
            f"| {row.memory_mib:.0f} |"
        )
    print("\n| workers | trials that last no time, a second |\n|---|---|")
    for workers in (8, 64, 1_000):
        print(f"| {workers:,} | {throughput(workers, 2_000):.0f} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(vars(restart(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
    else:
        main()
