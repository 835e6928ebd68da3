"""Several at once: threads, processes, broken connections, kill -9."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import Connection, text

from hpo.errors import StoreError
from hpo.store import database
from hpo.store.database import Database
from hpo.store.store import Store
from hpo.store.url import parse
from hpo.store.values import EventKind, Lease, Request
from hpo.trial import TrialState
from tests.store.samples import NOW, begun, completed, make_study, scalars, waiting


def test_of_eight_that_acquire_at_once_one_wins(url: str) -> None:
    with Store.open(url) as store:
        store.create_study(make_study(), {}, NOW)
    barrier = Barrier(8)

    def acquire(number: int) -> Lease | str:
        with Store.open(url) as mine:
            barrier.wait()
            try:
                return mine.acquire("quick", f"owner-{number}", 60.0, NOW)
            except StoreError as error:
                return error.message

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(acquire, range(8)))
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    assert winner.epoch == 1
    refusals = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert all(f"is being run by {winner.owner};" in refusal for refusal in refusals)
    with Store.open(url) as store:
        assert store.holder("quick") == winner


def test_eight_writers_on_eight_studies_lose_nothing(url: str) -> None:
    names = [f"study-{number}" for number in range(8)]
    barrier = Barrier(8)

    def write(name: str) -> None:
        with Store.open(url) as mine:
            lease = begun(mine, name, owner=name)
            barrier.wait()
            for number in range(10):
                mine.add_trial(lease, waiting(number), (), NOW)
                assert mine.save_trial(lease, completed(number), EventKind.COMPLETED, NOW)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
    with Store.open(url) as store:
        for name in names:
            assert store.trials(name) == tuple(completed(number) for number in range(10))
            kinds = [event.kind for event in store.events(name)]
            assert kinds == [EventKind.CREATED, EventKind.LEASE, *[EventKind.ASKED, EventKind.COMPLETED] * 10]


def test_a_user_and_the_coordinator_write_one_study_at_once(url: str) -> None:
    with Store.open(url) as store, Store.open(url) as user:
        lease = begun(store)
        barrier = Barrier(2)

        def ask() -> None:
            barrier.wait()
            for _ in range(20):
                user.request("quick", Request.DRAIN, NOW)

        def run() -> None:
            barrier.wait()
            for number in range(20):
                store.add_trial(lease, waiting(number), (), NOW)

        with ThreadPoolExecutor(2) as pool:
            for job in [pool.submit(ask), pool.submit(run)]:
                job.result()
        kinds = [event.kind for event in store.events("quick")]
        assert kinds.count(EventKind.ASKED) == kinds.count(EventKind.REQUESTED) == 20
        assert len(store.trials("quick")) == 20


def test_a_follower_of_events_sees_every_change_while_it_is_made(url: str) -> None:
    with Store.open(url) as store, Store.open(url, read_only=True) as reader:
        lease = begun(store)
        seen: dict[int, TrialState] = {}

        def write() -> None:
            for number in range(30):
                store.add_trial(lease, waiting(number), (), NOW)
                store.save_trial(lease, completed(number), EventKind.COMPLETED, NOW)

        with ThreadPoolExecutor(1) as pool:
            job, newest = pool.submit(write), 0
            while not (job.done() and newest == reader.events("quick")[-1].id):
                changed, newest = reader.trials_since("quick", newest)
                seen |= {trial.number: trial.state for trial in changed}
            job.result()
        assert seen == dict.fromkeys(range(30), TrialState.COMPLETED)


def test_a_store_in_memory_is_shared_by_threads() -> None:
    with Store.open("sqlite://") as store:
        lease = begun(store)

        def write(number: int) -> None:
            store.add_trial(lease, waiting(number), (), NOW)
            store.save_trial(lease, completed(number), EventKind.COMPLETED, NOW)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(20)))
        assert store.trials("quick") == tuple(completed(number) for number in range(20))


def _open_and_create(url: str, name: str) -> str:
    with Store.open(url) as store:
        begun(store, name, owner=name)
        return store.schema


def test_processes_that_open_a_new_store_at_once_make_it_once(url: str) -> None:
    names = ["a", "b", "c"]
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        schemas = list(pool.map(_open_and_create, [url] * 3, names))
    assert schemas == ["2 leases of trials"] * 3
    assert scalars(url, "SELECT count(*) FROM hpo_migration") == [2]
    with Store.open(url, read_only=True) as store:
        assert sorted(summary.name for summary in store.studies()) == names


_WRITE_FOR_EVER = """
import sys
from itertools import count
from hpo.store.store import Store
from hpo.store.values import EventKind
from tests.store.samples import NOW, begun, completed, waiting

with Store.open(sys.argv[1]) as store:
    lease = begun(store)
    for number in count():
        store.add_trial(lease, waiting(number), (), NOW)
        store.save_trial(lease, completed(number), EventKind.COMPLETED, NOW)
        print(number, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9(url: str) -> None:
    command = [sys.executable, "-c", _WRITE_FOR_EVER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_root()) as process:
        assert process.stdout is not None
        acknowledged = [int(next(process.stdout)) for _ in range(25)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout]
    with Store.open(url) as store:
        trials = store.trials("quick")
        assert trials[: len(acknowledged)] == tuple(map(completed, acknowledged))
        assert len(trials) <= len(acknowledged) + 1
        assert store.acquire("quick", "successor", 60.0, NOW + 61).epoch == 2
    if url.startswith("sqlite"):
        assert scalars(url, "PRAGMA integrity_check") == ["ok"]


def _root() -> Path:
    return Path(__file__).parents[2]


class Waits(list[float]):
    """Stands in for `pause`: records each wait, and runs `then` instead."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.then = then

    def __call__(self, closing: threading.Event, seconds: float) -> bool:
        self.append(seconds)
        self.then()
        return closing.is_set()


@pytest.fixture
def locked_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, sqlite3.Connection]]:
    """A store, and a connection that is holding SQLite's write lock on it."""
    monkeypatch.setattr(database, "_BUSY_S", 0.01)
    url = f"sqlite:///{tmp_path}/store.db"
    with Store.open(url) as store:
        store.create_study(make_study(), {}, NOW)
    rival = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    yield url, rival
    rival.close()


def test_a_locked_file_is_tried_again_until_it_is_free(
    locked_file: tuple[str, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, rival = locked_file
    waits = Waits(then=lambda: rival.execute("ROLLBACK") if rival.in_transaction else None)
    monkeypatch.setattr(database, "pause", waits)
    with Store.open(url) as store:
        store.request("quick", Request.DRAIN, NOW)
        assert store.requested("quick") is Request.DRAIN
    assert len(waits) == 1


def test_a_file_that_stays_locked_is_given_up_with_the_reason(
    locked_file: tuple[str, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = locked_file
    waits = Waits()
    monkeypatch.setattr(database, "pause", waits)
    with Store.open(url) as store:
        with pytest.raises(StoreError, match=r"database is locked(?s:.*)another process is writing"):
            store.request("quick", Request.DRAIN, NOW)
        assert store.requested("quick") is Request.NONE
    assert len(waits) == 5
    assert all(0.5 * low <= wait for low, wait in zip((0.05, 0.2, 0.8, 2.0, 5.0), waits, strict=True))


def test_a_patient_writer_goes_on_trying_for_as_long_as_it_was_told(
    locked_file: tuple[str, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, rival = locked_file
    waits = Waits()
    waits.then = lambda: rival.execute("ROLLBACK") if len(waits) == 40 else None
    monkeypatch.setattr(database, "pause", waits)
    with Store.open(url, patience_s=600.0) as store:
        store.request("quick", Request.DRAIN, NOW)
        assert store.requested("quick") is Request.DRAIN
    assert len(waits) == 40
    assert max(waits) <= 7.5


def test_closing_a_store_ends_the_wait_of_another_thread(locked_file: tuple[str, sqlite3.Connection]) -> None:
    url, _ = locked_file
    store = Store.open(url, patience_s=600.0)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(store.request, "quick", Request.DRAIN, NOW)
        store.close()
        with pytest.raises(StoreError, match="database is locked"):
            writing.result(timeout=60)


@pytest.mark.postgres
def test_a_connection_that_broke_while_idle_is_replaced(postgres_url: str) -> None:
    with Store.open(postgres_url) as store, Store.open(postgres_url) as killer:
        lease = begun(store)
        _kill_others(killer)
        store.add_trial(lease, waiting(), (), NOW)
        assert store.trials("quick") == (waiting(),)


def _kill_others(store: Store) -> None:
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND application_name = 'hpo'"
    )
    assert store._database.read(lambda c: c.scalars(text(query)).all())


@pytest.mark.postgres
def test_a_transaction_whose_connection_breaks_is_run_again_as_a_whole(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Waits()
    monkeypatch.setattr(database, "pause", waits)
    calls: list[int] = []

    def count_then_break(connection: Connection) -> None:
        calls.append(1)
        connection.execute(text("INSERT INTO plain VALUES (1)"))
        if len(calls) < 3:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    broken = Database(parse(postgres_url), read_only=False)
    broken.write(lambda connection: connection.execute(text("CREATE TABLE plain (x INTEGER)")))
    broken.write(count_then_break)
    assert broken.read(lambda connection: connection.scalar(text("SELECT count(*) FROM plain"))) == 1
    broken.close()
    assert (len(calls), len(waits)) == (3, 2)


@pytest.mark.postgres
def test_a_transaction_that_cannot_be_put_in_line_is_run_again(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Waits()
    monkeypatch.setattr(database, "pause", waits)
    calls: list[int] = []

    def clash(connection: Connection) -> int:
        calls.append(1)
        if len(calls) == 1:
            connection.execute(
                text("DO $$ BEGIN RAISE EXCEPTION 'clash' USING ERRCODE = 'serialization_failure'; END $$")
            )
        return 7

    clashing = Database(parse(postgres_url), read_only=False)
    assert clashing.write(clash) == 7
    clashing.close()
    assert (len(calls), len(waits)) == (2, 1)


def test_a_mistake_in_the_middle_of_a_transaction_leaves_nothing_behind(url: str) -> None:
    with Store.open(url) as store:
        lease = begun(store)
        store.add_trial(lease, waiting(), (), NOW)
        before = store.events("quick")
        with pytest.raises(TypeError, match="not JSON serializable"):
            store.save_trial(lease, completed(), EventKind.COMPLETED, NOW, {"x": object()})
        assert store.trials("quick") == (waiting(),)
        assert store.events("quick") == before
