"""Run the toy study under a real coordinator and a real store."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.run.bench import BenchSpec
from hpo.run.coordinator import Coordinator, Outcome
from hpo.run.in_process import InProcessRunner
from hpo.run.lease import owner_name
from hpo.run.runner import Runner
from hpo.search.warm_start import WarmStart
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.study import Study
from hpo.trial import Trial
from tests.run import benches

Listener = Callable[[EventKind, Trial], None]
RunToy = Callable[..., Outcome]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


def coordinate(
    store: Store,
    study: Study,
    runner: Runner,
    listener: Listener = lambda kind, trial: None,
    tiers: tuple[str, ...] = (),
    warm: WarmStart | None = None,
) -> Outcome:
    """Create the study if need be, and run it to its end."""
    return coordinator(store, study, runner, listener, tiers, warm).run()


def coordinator(
    store: Store,
    study: Study,
    runner: Runner,
    listener: Listener = lambda kind, trial: None,
    tiers: tuple[str, ...] = (),
    warm: WarmStart | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Coordinator:
    setup = runner.start()
    now = time.time()
    if not any(s.name == study.name for s in store.studies()):
        store.create_study(study, {}, now)
    lease = store.acquire(study.name, owner_name(), 30.0, now)
    problem = benches.problem(study, tiers)
    return Coordinator(store, study, runner, setup, problem, lease, listener, warm, say)


def in_process(study: Study, **faults: Any) -> InProcessRunner:
    return InProcessRunner(
        BenchSpec(benches.TOY, {"faults": {k.lstrip("_"): v for k, v in faults.items()}}), study.run
    )
