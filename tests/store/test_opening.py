"""Opening a store: making it, reading only, being refused; and never showing the password."""

import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from hpo.errors import HpoError, NotFound, StoreError, Unsupported, UsageError
from hpo.store.failures import explain, is_passing, is_unconnected
from hpo.store.store import Store
from hpo.store.url import parse
from hpo.store.values import EventKind, Lease, Request
from tests.store.samples import NOW, begun, completed, make_study, waiting

SECRET = "hunter2-s3cret"


def test_a_store_is_made_and_found_again(url: str) -> None:
    with Store.open(url) as store:
        begun(store)
        assert store.schema == "2 leases of trials"
    with Store.open(url) as store:
        assert store.study("quick").study == make_study()


def test_a_store_in_memory_ends_with_its_opener() -> None:
    with Store.open("sqlite://") as store:
        begun(store)
    with Store.open("sqlite://") as store:
        assert store.studies() == ()


def test_a_store_shows_where_it_is(tmp_path: Path) -> None:
    with Store.open(f"{tmp_path}/my.db") as store:
        assert store.url == f"sqlite:///{tmp_path}/my.db"
        assert repr(store) == f"Store('{store.url}')"


def test_a_sqlite_file_has_a_write_ahead_log_and_can_be_read_while_written(tmp_path: Path) -> None:
    with Store.open(f"{tmp_path}/my.db") as store, Store.open(f"{tmp_path}/my.db", read_only=True) as reader:
        assert (tmp_path / "my.db-wal").exists()
        begun(store)
        assert reader.study("quick").study == make_study()


def test_a_reader_sees_everything_and_changes_nothing(url: str) -> None:
    with Store.open(url) as store, Store.open(url, read_only=True) as reader:
        lease = begun(store)
        store.add_trial(lease, waiting(), (), NOW)
        assert reader.trials("quick") == (waiting(),)
        for write in _writes(reader, lease):
            with pytest.raises(StoreError, match=r"(?i)read-?only"):
                write()
        assert store.trials("quick") == (waiting(),)
        assert len(store.events("quick")) == 3


def _writes(reader: Store, lease: Lease) -> list[Callable[[], object]]:
    return [
        lambda: reader.create_study(make_study("other"), {}, NOW),
        lambda: reader.request("quick", Request.DRAIN, NOW),
        lambda: reader.save_trial(lease, completed(), EventKind.COMPLETED, NOW),
        lambda: reader.acquire("quick", "me", 60.0, NOW),
    ]


def test_a_file_that_is_not_there_cannot_be_read_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no study store at .*missing\.db(?s:.*)hpo launch STUDY"):
        Store.open(f"{tmp_path}/missing.db", read_only=True)
    assert not (tmp_path / "missing.db").exists()


def test_an_empty_database_cannot_be_read(url: str, tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(NotFound, match=r"holds no studies yet(?s:.*)hpo launch STUDY"):
        Store.open(url, read_only=True)


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/my\.db: unable to open(?s:.*)its directory exists"):
        Store.open(f"{tmp_path}/nowhere/my.db")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.db").write_text("This is a diary, of some length, and no database. " * 40)
    with pytest.raises(StoreError, match=r"file is not a database(?s:.*)name another file"):
        Store.open(f"{tmp_path}/my.db")
    assert (tmp_path / "my.db").read_text().startswith("This is a diary")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.postgres
@pytest.mark.parametrize("read_only", [False, True])
def test_a_server_that_is_not_there_is_named_with_the_cause(closed_port: int, read_only: bool) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as caught:
        Store.open(f"postgresql://ann:{SECRET}@127.0.0.1:{closed_port}/studies", read_only=read_only)
    assert f"cannot reach the store at host 127.0.0.1, port {closed_port}, database studies" in str(
        caught.value
    )
    assert "refused" in caught.value.message
    assert "start the server" in caught.value.hint
    assert "Traceback" not in str(caught.value)


@pytest.mark.postgres
def test_each_of_several_servers_is_tried_and_named(closed_port: int) -> None:
    pytest.importorskip("psycopg")
    hosts = f"127.0.0.1:{closed_port}", f"localhost:{closed_port}"
    with pytest.raises(StoreError, match=f"host {hosts[0]} or {hosts[1]}, database studies: .*refused"):
        Store.open(f"postgresql:///studies?host={hosts[0]}&host={hosts[1]}")


@pytest.mark.postgres
def test_an_address_may_set_its_own_parameters(postgres_url: str) -> None:
    with Store.open(f"{postgres_url}&application_name=mine") as store:
        name = store._database.read(lambda c: c.exec_driver_sql("SHOW application_name").scalar())
    assert name == "mine"


@pytest.mark.postgres
def test_a_database_that_is_not_there_is_named(postgres_url: str) -> None:
    with pytest.raises(StoreError, match=r'database "nowhere" does not exist(?s:.*)createdb'):
        Store.open(postgres_url.replace("/postgres?", "/nowhere?"))


@pytest.mark.postgres
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ann:{secret}@127.0.0.1:{port}/studies",
        "postgresql://127.0.0.1:{port}/studies?user=ann&password={secret}",
        "postgresql://ann:{secret}@127.0.0.1:{port}/studies?unknown={secret}",
        "postgresql://ann:{secret}@127.0.0.1:port/studies",
        "postgresql://ann:{secret}@[::bad/studies",
        "mysql://ann:{secret}@db/x",
    ],
)
def test_the_password_is_in_no_error_trace_or_log(
    address: str, closed_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("psycopg")
    caplog.set_level(logging.DEBUG)
    with pytest.raises(HpoError) as caught:
        Store.open(address.format(secret=SECRET, port=closed_port))
    error = caught.value
    # The test's own frames hold the address, so only what is chained and printed is looked at.
    printed = "".join(traceback.format_exception(error))
    assert SECRET not in f"{error!s} {error!r} {error.args} {error.hint}"
    assert SECRET not in printed
    assert error.__cause__ is None
    assert error.__context__ is None
    assert SECRET not in caplog.text


@pytest.mark.postgres
def test_the_password_is_not_in_what_an_open_store_shows(postgres_url: str) -> None:
    with Store.open(postgres_url.replace("postgres:@", f"postgres:{SECRET}@")) as store:
        assert "***" in store.url
        shown = f"{store.url} {store!r} {store!s} {store._database!r} {store._database._engine!r}"
    assert SECRET not in shown


def test_a_drivers_message_is_cleared_of_the_password() -> None:
    url = parse(f"postgresql://ann:{SECRET}@db/x?sslpassword=pass2-s3cret")
    said = Exception(f'invalid dsn "password={SECRET} sslpassword=pass2-s3cret"\nmore lines')
    error = explain(url, OperationalError(None, None, said))
    assert str(error).startswith(
        'cannot reach the store at host db, port 5432, database x: invalid dsn "password=*** sslpassword=***"'
    )


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("connection failed: Connection refused", "start the server"),
        ("connection timeout expired", "firewall"),
        ("failed to resolve host 'db': Name or service not known", "check the host name"),
        ('password authentication failed for user "ann"', "check user and password"),
        ("database or disk is full", "make room"),
        ("database disk image is malformed", "restore it from a backup"),
        ("something new", "hpo doctor"),
    ],
)
def test_each_cause_comes_with_what_to_do(said: str, hint: str) -> None:
    assert hint in explain(parse("postgresql://db/x"), OperationalError(None, None, Exception(said))).hint


@pytest.mark.parametrize(
    ("state", "passing"),
    [("40001", True), ("40P01", True), ("57P01", True), ("08006", True), ("42501", False), (None, False)],
)
def test_only_what_passes_by_itself_is_tried_again(state: str | None, passing: bool) -> None:
    cause = Exception("said")
    cause.sqlstate = state  # type: ignore[attr-defined]  # as psycopg's errors have it
    assert is_passing(OperationalError("SELECT 1", None, cause)) is passing
    assert not is_unconnected(OperationalError("SELECT 1", None, cause))


def test_a_missing_driver_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Unsupported, match=r"psycopg(?s:.*)compression-hpo\[postgres\]") as caught:
        Store.open(f"postgresql://ann:{SECRET}@db/x")
    assert caught.value.__context__ is None


def test_a_store_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.store.url._mounts", lambda: f"nas:/x {tmp_path.resolve()} nfs4 rw 0 0")
    for read_only in (False, True):
        with pytest.raises(StoreError, match="network file system"):
            Store.open(f"{tmp_path}/my.db", read_only=read_only)
    assert os.listdir(tmp_path) == []


def test_a_wrong_address_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not the address"):
        Store.open("studies")
