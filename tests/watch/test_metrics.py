"""Figures for Prometheus: scraped over HTTP from a study that ran in this process."""

import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hpo.errors import StoreError, UsageError
from hpo.run.heartbeat import LEASE_S
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import Trial
from hpo.watch.metrics import StudyMetrics, served
from tests.run import benches
from tests.run.conftest import coordinate, in_process

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


def scraped(address: str) -> Samples:
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _one(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def test_a_study_is_scraped_while_it_runs_and_when_it_is_over(store: Store, tmp_path: Path) -> None:
    study = benches.study(6, budget={"trials": 6, "joules": 1000})
    during: list[Samples] = []
    metrics = StudyMetrics(store, study, LEASE_S)
    with served(metrics, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        assert _one(scraped(address), "hpo_store_up") == 0, "the study is not there yet"

        def listen(kind: EventKind, trial: Trial) -> None:
            metrics.hear(kind, trial)
            if kind is EventKind.STARTED and trial.number == 3:
                during.append(scraped(address))

        coordinate(store, study, in_process(study, joules=2.0, _4="nan"), listen)
        after = scraped(address)
    assert _one(during[0], "hpo_trials", state="running") == 1
    assert _one(during[0], "hpo_trials", state="completed") == 3
    assert _one(during[0], "hpo_workers_busy") == 1
    assert _one(during[0], "hpo_worker_silent_seconds", worker="in-process") < LEASE_S
    assert 0 <= _one(during[0], "hpo_coordinator_heartbeat_age_seconds") < LEASE_S
    assert _one(after, "hpo_store_up") == 1
    assert _one(after, "hpo_trials_asked_total") == 6
    assert _one(after, "hpo_trials_over_total", state="completed", cause="") == 5
    assert _one(after, "hpo_trials_over_total", state="failed", cause="not_a_number") == 1
    assert _one(after, "hpo_failed_trials_total", cause="not_a_number") == 1
    assert _one(after, "hpo_stage_seconds_count", stage="compress") == 6
    assert _one(after, "hpo_stage_seconds_count", stage="time") == 5
    assert _one(after, "hpo_stage_seconds_sum", stage="measure") == pytest.approx(0.06)
    assert _one(after, "hpo_worker_busy_seconds_total") == pytest.approx(0.17)
    assert _one(after, "hpo_budget_used", unit="trials") == 6
    assert _one(after, "hpo_budget_limit", unit="joules") == 1000
    assert _one(after, "hpo_budget_used", unit="joules") == 32, "17 stages, one without a reading"
    front = store.front("toy")
    assert front is not None
    assert _one(after, "hpo_front_members") == len(front.members)
    assert _one(after, "hpo_hypervolume") == pytest.approx(front.hypervolume)
    assert _one(after, "hpo_proposals_total") == 6
    assert 1 <= _one(after, "hpo_ask_seconds_count") <= 6


def test_what_earlier_runs_spent_is_part_of_the_budget_used(store: Store) -> None:
    study = benches.study(budget={"joules": 40})
    coordinate(store, study, in_process(study, joules=5.0))
    more = benches.study(budget={"joules": 70})
    metrics = StudyMetrics(store, more, LEASE_S)
    with served(metrics, 0) as address:
        before = _one(scraped(address), "hpo_budget_used", unit="joules")
        coordinate(store, more, in_process(more, joules=5.0), metrics.hear)
        after = _one(scraped(address), "hpo_budget_used", unit="joules")
    assert (before, after) == (45.0, 75.0)


def test_lost_workers_and_retries_are_counted_by_cause(store: Store) -> None:
    store.create_study(benches.study(3), {}, 0.0)
    lease = store.acquire("toy", "me", 30.0, time.time())
    trial = Trial(0, benches.study().space.candidate({"x": 0.5}), "sobol", "p")
    store.add_trial(lease, trial, (), 100.0)
    trial = trial.started("w", 100.0)
    store.save_trial(lease, trial, EventKind.STARTED, 100.0, {"worker": "w"})
    store.note(lease, EventKind.LOST, 101.0, 0, 1, {"cause": "timed_out", "why": "gone", "seconds": 7.0})
    store.save_trial(lease, trial.requeued(), EventKind.REQUEUED, 101.0, {"why": "gone"})
    with served(StudyMetrics(store, benches.study(3), LEASE_S), 0) as address:
        found = scraped(address)
    assert _one(found, "hpo_lost_attempts_total", cause="timed_out") == 1
    assert _one(found, "hpo_retries_total", cause="timed_out") == 1
    assert _one(found, "hpo_coordinator_epoch") == 1


def test_errors_of_the_database_are_counted_and_only_while_it_is_served(store: Store, tmp_path: Path) -> None:
    metrics = StudyMetrics(store, benches.study(3), LEASE_S)
    with (
        Store.open(f"sqlite:///{tmp_path}/study.db", patience_s=0.0) as impatient,
        served(metrics, 0) as address,
    ):
        blocker = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
        impatient._database._engine.dispose()
        blocker.execute("ALTER TABLE study RENAME TO gone")
        with pytest.raises(StoreError):
            impatient.create_study(benches.study(3), {}, 0.0)
        assert _one(scraped(address), "hpo_store_errors_total", kind="lasting") >= 1
        blocker.execute("ALTER TABLE gone RENAME TO study")
        blocker.close()


def test_a_port_that_is_taken_is_refused_with_what_to_do(store: Store) -> None:
    metrics = StudyMetrics(store, benches.study(3), LEASE_S)
    with served(metrics, 0) as address:
        port = int(address.split(":")[2].partition("/")[0])
        with (
            pytest.raises(UsageError, match=r"cannot be served at 127\.0\.0\.1") as caught,
            served(metrics, port),
        ):
            pass
    assert "--metrics-port" in caught.value.hint


def test_no_figure_names_a_candidate_or_an_address(store: Store) -> None:
    study = benches.study(3)
    metrics = StudyMetrics(store, study, LEASE_S)
    coordinate(store, study, in_process(study), metrics.hear)
    with served(metrics, 0) as address, urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    assert "sqlite" not in text
    assert "x=" not in text
