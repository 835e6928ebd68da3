"""`Store.faults`: a whole store has none, and each kind of damage is named with what to do."""

import sqlite3
from pathlib import Path

import pytest

from hpo.errors import StoreError
from hpo.store.checking import Fault
from hpo.store.store import Store
from hpo.store.values import TRIAL_LEASE_S, EventKind, Lease, StudyState
from tests.store.samples import NOW, begun, completed, execute, layers, make_front, running, waiting


def filled(url: str) -> Lease:
    """Store a study with a completed, a running and a waiting trial, and a front."""
    with Store.open(url) as store:
        lease = begun(store)
        store.set_state(lease, StudyState.RUNNING, "", NOW)
        for number in range(3):
            store.add_trial(lease, waiting(number), layers(), NOW)
        store.save_trial(lease, running(0), EventKind.STARTED, NOW)
        store.save_trial(lease, completed(0), EventKind.COMPLETED, NOW)
        store.save_trial(lease, running(1), EventKind.STARTED, NOW)
        store.save_front(lease, make_front(1, (0,)))
    return lease


def faults(url: str, at: float = NOW + 1) -> list[Fault]:
    with Store.open(url, read_only=True) as store:
        return store.faults(at)


def words(url: str, at: float = NOW + 1) -> list[str]:
    return [str(fault) for fault in faults(url, at)]


def test_a_store_that_is_whole_has_no_faults(url: str) -> None:
    filled(url)
    assert faults(url) == []


def test_a_worker_that_is_not_heard_of_is_told_while_its_coordinator_lives(url: str) -> None:
    lease = filled(url)
    late = NOW + TRIAL_LEASE_S + 12
    with Store.open(url) as store:
        store.renew(lease, 3600.0, NOW)
    assert words(url, late) == [
        "quick: trial 1 is running, and its worker has not been heard of since its lease ran out 12 s ago"
    ]
    with Store.open(url) as store:
        store.renew_trials(lease, [0, 1, 2], late)
        assert [(t.trial, t.epoch, t.until) for t in store.trial_leases("quick")] == [
            (1, lease.epoch, late + TRIAL_LEASE_S)
        ]
    assert faults(url, late) == []


def test_a_dead_coordinator_and_what_it_ran_are_told_with_the_way_on(url: str) -> None:
    filled(url)
    found = faults(url, NOW + 100)
    assert [fault.what for fault in found] == [
        "its coordinator me has not been heard of since its lease ran out 40 s ago",
        "trial 1 is running, and no coordinator is",
    ]
    assert all("hpo resume quick" in fault.remedy for fault in found)


def test_a_study_that_runs_without_a_lease_is_told(url: str) -> None:
    lease = filled(url)
    with Store.open(url) as store:
        store.release(lease, NOW)
    assert "quick: it is running, and nobody holds its lease" in words(url)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE trial SET number = 7 WHERE number = 2", "its 3 trials are not numbered 0 to 2"),
        ("DELETE FROM plan WHERE trial = 2", "trial 2 has no plan"),
        ("DELETE FROM event WHERE kind = 'completed'", "trial 0 is completed, and no event tells of it"),
        (
            "INSERT INTO event (study_id, at, kind, trial, attempt, payload) "
            "VALUES (1, 0, 'completed', 0, 1, '{}')",
            "attempt 1 of trial 0 was completed 2 times",
        ),
        (
            "UPDATE trial SET finished_at = NULL WHERE number = 0",
            "is completed, and it is not known since when",
        ),
        ("UPDATE front SET members = '[0,9]'", "its front names trials that are not there: [9]"),
    ],
)
def test_rows_that_contradict_each_other_are_told(url: str, damage: str, told: str) -> None:
    filled(url)
    if "SET number" in damage:
        damage = damage.replace("number = 2", "number = 2 AND 1 = 1")
        execute(url, "DELETE FROM plan WHERE trial = 2")
    execute(url, damage)
    assert any(told in line for line in words(url)), words(url)


def test_more_trials_than_the_budget_are_told(url: str) -> None:
    with Store.open(url) as store:
        lease = begun(store)
        for number in range(11):
            store.add_trial(lease, waiting(number), (), NOW)
    assert words(url) == ["quick: it has 11 trials, and a budget of 10"]


def test_rows_that_belong_to_nothing_are_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    filled(url)
    with sqlite3.connect(tmp_path / "store.db") as connection:  # without foreign keys
        connection.execute("DELETE FROM trial WHERE number = 0")
        connection.execute("INSERT INTO event (study_id, at, kind, payload) VALUES (99, 0, 'note', '{}')")
    told = words(url)
    assert "1 rows of event belong to no study" in told
    assert "2 rows of measurement belong to no trial" in told


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    filled(f"sqlite:///{path}")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'trial_by_state'"
        ).fetchone()
        size = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page[0] - 1) * size[0] + size[0] - 40)
        file.write(b"\x07" * 20)
    try:
        told = words(f"sqlite:///{path}")
    except StoreError as error:  # too damaged even to be looked through
        told = [str(error)]
    assert any("damaged" in line or "malformed" in line for line in told), told
