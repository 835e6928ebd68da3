"""Copies of a store: made while it is written, before its schema changes, or not at all."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from hpo.errors import StoreError, Unsupported, UsageError
from hpo.store import migrations
from hpo.store.migrations import MIGRATIONS
from hpo.store.store import Store
from tests.store.samples import NOW, begun, make_study, scalars, waiting
from tests.store.test_migrations import FIRST_SCHEMA


@pytest.fixture
def store_file(tmp_path: Path) -> Path:
    path = tmp_path / "hpo.db"
    with Store.open(str(path)) as store:
        store.add_trial(begun(store), waiting(), (), NOW)
    return path


def test_a_copy_holds_what_the_store_holds_and_opens_as_a_store(store_file: Path, tmp_path: Path) -> None:
    with Store.open(str(store_file), read_only=True) as store:
        made = store.back_up(tmp_path / "copy.db")
        kept = store.trials("quick")
    with Store.open(str(made)) as copy:
        assert copy.trials("quick") == kept
        assert copy.study("quick").study == make_study()


def test_a_store_is_copied_while_another_connection_writes_it(store_file: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(store_file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE study SET message = 'half done'")
    with Store.open(str(store_file), read_only=True) as store:
        made = store.back_up(tmp_path / "copy.db")
    writer.execute("COMMIT")
    writer.close()
    with Store.open(str(made), read_only=True) as copy:
        assert copy.study("quick").message == "", "what was not committed is not in it"


def test_no_file_is_written_over(store_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.db").write_text("precious")
    with (
        Store.open(str(store_file), read_only=True) as store,
        pytest.raises(UsageError, match="exists already"),
    ):
        store.back_up(tmp_path / "mine.db")
    assert (tmp_path / "mine.db").read_text() == "precious"


def test_a_copy_that_fails_leaves_nothing_behind(store_file: Path, tmp_path: Path) -> None:
    with (
        Store.open(str(store_file), read_only=True) as store,
        pytest.raises(StoreError, match="could not be copied"),
    ):
        store.back_up(tmp_path / "hpo.db" / "copy.db")
    assert {path.name.partition("-")[0] for path in tmp_path.rglob("*")} == {"hpo.db"}


def test_a_store_in_memory_cannot_be_backed_up(tmp_path: Path) -> None:
    with Store.open(":memory:") as store, pytest.raises(Unsupported, match="in memory"):
        store.back_up(tmp_path / "copy.db")


def test_a_store_is_copied_before_its_schema_changes(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_SCHEMA.read_text())
    connection.close()
    Store.open(str(path)).close()
    (copy,) = tmp_path.glob("old.db.schema-1-*.bak")
    with sqlite3.connect(copy) as old:
        assert old.execute("SELECT name FROM hpo_migration").fetchall() == [("first tables",)]
        assert old.execute("SELECT count(*) FROM trial").fetchone() == (3,)
    Store.open(str(path)).close()
    assert len(list(tmp_path.glob("old.db.schema-*"))) == 1, "a store that is new enough is not copied"


def test_where_no_copy_can_be_made_the_schema_is_not_changed(
    store_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = migrations.Migration(len(MIGRATIONS) + 1, "nothing", lambda connection: None)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, later))
    monkeypatch.setattr("hpo.store.backup._copy_file", _full)
    with pytest.raises(StoreError, match=r"No space left(?s:.*)is there room"):
        Store.open(str(store_file))
    assert scalars(f"sqlite:///{store_file}", "SELECT count(*) FROM hpo_migration") == [len(MIGRATIONS)]


def _full(path: Path, target: Path) -> None:
    target.write_bytes(b"half")
    raise OSError(28, "No space left on device")


@pytest.mark.postgres
def test_without_pg_dump_a_server_is_not_backed_up_and_the_error_says_so(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with Store.open(postgres_url) as store, pytest.raises(Unsupported, match="pg_dump"):
        store.back_up(tmp_path / "copy.dump")


@pytest.mark.postgres
def test_pg_dump_is_handed_the_password_by_the_environment_and_no_argument(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "pg_dump"
    tool.write_text(
        "#!/bin/sh\n"
        f'echo "$@" > {tmp_path}/arguments\necho "$PGPASSWORD" > {tmp_path}/password\n'
        'for a in "$@"; do case "$a" in --file=*) echo dump > "${a#--file=}";; esac; done\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(tool))
    with Store.open(postgres_url) as store:
        store._database.url = store._database.url.set(password="hunter2")
        made = store.back_up(tmp_path / "copy.dump")
    assert made.read_text() == "dump\n"
    assert "hunter2" not in (tmp_path / "arguments").read_text()
    assert (tmp_path / "password").read_text() == "hunter2\n"
