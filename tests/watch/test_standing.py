"""Where a study stands: signs of life, retries by cause, whether anybody runs it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.store.store import Store
from hpo.store.values import TRIAL_LEASE_S, EventKind, StudyState
from hpo.trial import Trial
from hpo.watch.standing import Standings
from tests.run import benches
from tests.run.conftest import coordinate, in_process


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


def test_what_has_changed_since_the_last_look_is_read_on(store: Store) -> None:
    study = benches.study(2)
    coordinate(store, study, in_process(study))
    standings = Standings(store, "toy")
    assert len(standings.read(time.time()).trials) == 2
    more = benches.study(4)
    coordinate(store, more, in_process(more, _3="raise"))
    standing = standings.read(time.time())
    assert {str(state): n for state, n in standing.counts.items()} == {"completed": 3, "failed": 1}
    assert standing.causes == {"error": 1}
    assert standing == Standings(store, "toy").read(standing.at)


def test_a_running_trial_tells_since_when_its_worker_is_silent_and_why_it_is_tried_again(
    store: Store,
) -> None:
    store.create_study(benches.study(3), {}, 0.0)
    lease = store.acquire("toy", "me", 30.0, 100.0)
    store.set_state(lease, StudyState.RUNNING, "", 100.0)
    trial = Trial(0, benches.study().space.candidate({"x": 0.5}), "sobol", "p", created_at=100.0)
    store.add_trial(lease, trial, (), 100.0)
    trial = trial.started("w", 100.0)
    store.save_trial(lease, trial, EventKind.STARTED, 100.0, {"worker": "w"})
    for cause in ("lost_worker", "timed_out", "lost_worker"):
        store.note(lease, EventKind.LOST, 101.0, 0, trial.attempt, {"cause": cause, "why": "gone"})
        trial = trial.requeued()
        store.save_trial(lease, trial, EventKind.REQUEUED, 101.0, {"why": "gone"})
        trial = trial.started("w", 101.0)
        store.save_trial(lease, trial, EventKind.STARTED, 101.0, {"worker": "w"})
    trial = trial.requeued()
    store.save_trial(lease, trial, EventKind.REQUEUED, 102.0, {"why": "told to go", "cause": "preempted"})
    trial = trial.started("w", 103.0)
    store.save_trial(lease, trial, EventKind.STARTED, 103.0, {"worker": "w"})
    store.renew_trials(lease, [0], 107.0)
    standings = Standings(store, "toy")
    standing = standings.read(112.0)
    assert standing.silent_s(trial) == pytest.approx(5.0)
    assert dict(standing.leases)[0].until == pytest.approx(107.0 + TRIAL_LEASE_S)
    assert standing.retries == {"lost_worker": 2, "timed_out": 1, "preempted": 1}
    assert (standing.lease_s, standing.has_coordinator, standing.is_over) == (18.0, True, False)
    later = standings.read(131.0)
    assert (later.has_coordinator, later.is_over) == (False, True)


def test_a_trial_put_back_because_the_study_stopped_was_interrupted(store: Store) -> None:
    store.create_study(benches.study(3), {}, 0.0)
    lease = store.acquire("toy", "me", 30.0, 100.0)
    trial = Trial(0, benches.study().space.candidate({"x": 0.5}), "sobol", "p")
    store.add_trial(lease, trial, (), 100.0)
    store.save_trial(lease, trial.started("w", 100.0), EventKind.STARTED, 100.0, {"worker": "w"})
    requeued = trial.started("w", 100.0).requeued()
    store.save_trial(lease, requeued, EventKind.REQUEUED, 101.0, {"why": "the study was stopped"})
    assert Standings(store, "toy").read(102.0).retries == {"interrupted": 1}


def test_a_study_that_nobody_has_begun_is_not_over(store: Store) -> None:
    store.create_study(benches.study(3), {}, 0.0)
    assert not Standings(store, "toy").read(time.time()).is_over
