"""A study that two workers work on, written as its coordinator writes it: one is lost, one trial runs.

Worker 0 runs trial 0 from second 10 to 40 and trial 2 from 50 on. Worker 1 begins trial 1 at 20, is lost at
30, runs it again from 40 to 60, and stops trial 3, begun at 70, at 80. All in seconds after `BEGIN`.
"""

import time
from pathlib import Path

from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.trial import StageTime, Trial
from tests.dashboards.synthetic import ENVIRONMENT, answers, candidate, plan, study_named

BEGIN = time.time() - 100


def write_working(path: Path, name: str = "working", begin: float = BEGIN, lease_s: float = 3600.0) -> str:
    """Write the study to a store at `path`, its lease good for `lease_s` from `begin`; return its address."""
    url = f"sqlite:///{path}"
    with Store.open(url) as store:
        store.create_study(study_named(name), ENVIRONMENT, begin)
        lease = store.acquire(name, "node-7:4242", lease_s, begin)
        store.set_state(lease, StudyState.RUNNING, "", begin)
        trials = [
            Trial(n, candidate(0.3 + n / 10), "bayesian", plan_hash=f"{n:04d}", created_at=begin)
            for n in range(4)
        ]
        for trial in trials:
            store.add_trial(lease, trial, plan(0.5), begin)

        def save(trial: Trial, kind: EventKind, at: float, **payload: object) -> Trial:
            store.save_trial(lease, trial, kind, begin + at, payload)
            return trial

        def start(trial: Trial, worker: str, at: float) -> Trial:
            return save(trial.started(worker, begin + at), EventKind.STARTED, at, worker=worker)

        def measured(trial: Trial, seconds: float) -> Trial:
            return trial.advanced(StageTime("measure", seconds), answers(0.3 + trial.number / 10))

        zero = start(trials[0], "worker-0", 10)
        one = start(trials[1], "worker-1", 20)
        lost = {"worker": "worker-1", "why": "the worker died", "seconds": 10.0}
        store.note(lease, EventKind.LOST, begin + 30, 1, 1, lost)
        again = save(one.requeued(), EventKind.REQUEUED, 30, why="the worker died")
        save(measured(zero, 30).completed(begin + 40), EventKind.COMPLETED, 40)
        one = start(again, "worker-1", 40)
        two = start(trials[2], "worker-0", 50)
        save(measured(one, 20).completed(begin + 60), EventKind.COMPLETED, 60)
        compressed = StageTime("compress", 5.0)
        save(two.advanced(compressed), EventKind.STAGE_DONE, 65, stage="compress", seconds=5.0)
        three = start(trials[3], "worker-1", 70)
        save(three.stopped("its optimistic bound is dominated", begin + 80), EventKind.STOPPED, 80)
    return url
