"""How long do the commands take that people type most, on a store of 10,000 trials?

Whole processes, from the shell: median of five, beside an interpreter that does nothing.

    python -m benchmarks.bench_cli
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from hpo.metric import METRICS
from hpo.problem import Preview, Problem, on_front
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, Front
from hpo.study import Study
from hpo.trial import Measurement, StageTime, Trial

TRIALS = 10_000
REPEATS = 5
OBJECTIVES = ("perplexity", "prefill_latency", "weight_memory", "energy")


@dataclass(frozen=True)
class Row:
    """Seconds of a whole process."""

    command: str
    seconds: float


def fill(url: str) -> None:
    """Write a study of 10,000 completed trials of four objectives and its front."""
    study = Study.from_mapping(
        {
            "version": 1,
            "name": "big",
            "model": "reference",
            "objectives": [*OBJECTIVES[:3], {"metric": "energy", "allow_modelled": True}],
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": TRIALS},
        }
    )
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(0, 0.3, (TRIALS, 4))) / (1 + rng.random((TRIALS, 1)))
    with Store.open(url) as store:
        store.create_study(study, {}, time.time())
        lease = store.acquire("big", "bench", 3600, time.time())
        trials = []
        for number in range(TRIALS):
            trial = Trial(
                number,
                Candidate.of({"x": float(rng.random())}) if number else Candidate(),
                "anchor:dense" if number == 0 else "sobol",
                f"plan{number}",
                created_at=time.time(),
            )
            store.add_trial(lease, trial, (), time.time())
            found = tuple(
                Measurement(m, float(v), METRICS[m].unit, METRICS[m].source, spread=0.01, repeats=5)
                for m, v in zip(OBJECTIVES, values[number], strict=True)
            )
            done = trial.started("worker-0", time.time()).advanced(StageTime("measure", 1.0), found)
            done = replace(done.completed(time.time()))
            store.save_trial(lease, done, EventKind.COMPLETED, time.time())
            trials.append(done)
        problem = Problem(study.space, study.objectives, (), _no_preview)
        best = on_front(study.objectives, trials)
        members = [trial for trial, is_best in zip(trials, best, strict=True) if is_best]
        frame = problem.frame(trials)
        share = None if frame is None else frame.hypervolume(problem.losses(members))
        box = ((), ()) if frame is None else (frame.reference, frame.ideal)
        store.save_front(lease, Front(0, tuple(t.number for t in members), share, *box, TRIALS, time.time()))
        store.release(lease, time.time())


def _no_preview(candidates: object) -> Preview:
    raise AssertionError("nothing is previewed here")


def run() -> list[Row]:
    """Return a row a command."""
    hpo = str(Path(sys.executable).with_name("hpo"))
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/big.db"
        fill(url)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "hpo --help": [hpo, "--help"],
            "hpo status": [hpo, "status", "--storage", url],
            "hpo status big": [hpo, "status", "big", "--storage", url],
            "hpo front big": [hpo, "front", "big", "--storage", url],
            "hpo front big --json": [hpo, "front", "big", "--json", "--storage", url],
            "hpo show big 77": [hpo, "show", "big", "77", "--storage", url],
        }
        return [
            Row(name, median(_timed(command) for _ in range(REPEATS))) for name, command in commands.items()
        ]


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    print("| command | seconds |\n|---|---|")
    for r in run():
        print(f"| `{r.command}` | {r.seconds:.2f} |")


if __name__ == "__main__":
    main()
