"""The schema through the releases: fresh and upgraded stores agree, and newer ones are refused."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Inspector, inspect, text

from hpo.errors import StoreError
from hpo.store import migrations
from hpo.store.database import Database
from hpo.store.migrations import MIGRATIONS, Migration
from hpo.store.schema import METADATA
from hpo.store.store import Store
from hpo.store.url import parse
from hpo.store.values import EventKind, Request, StudyState
from tests.store.samples import (
    NOW,
    begun,
    completed,
    execute,
    layers,
    make_front,
    make_study,
    measured,
    scalars,
    waiting,
)

FIRST_SCHEMA = Path(__file__).with_name("schema_1.sql")
"""The dump of a store of release 0.1 with the study and trials of `samples`. Never to be made anew."""


def test_migrations_are_numbered_from_one_without_gaps_and_named_apart() -> None:
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert len({step.name for step in MIGRATIONS}) == len(MIGRATIONS)


def test_released_migrations_keep_their_names() -> None:
    assert [step.name for step in MIGRATIONS][:2] == ["first tables", "leases of trials"]


def test_migrated_tables_are_those_the_code_works_with(url: str) -> None:
    Store.open(url).close()
    database = Database(parse(url), read_only=False)
    migrated = database.read(_description)
    database.write(METADATA.drop_all)
    database.write(METADATA.create_all)
    declared = database.read(_description)
    database.close()
    assert migrated == declared


def _description(connection: Connection) -> dict[str, Any]:
    found: Inspector = inspect(connection)
    return {name: _table(found, name) for name in sorted(found.get_table_names())}


def _table(found: Inspector, name: str) -> dict[str, Any]:
    keys = [
        (key["constrained_columns"], key["referred_table"], key["referred_columns"], key["options"])
        for key in found.get_foreign_keys(name)
    ]
    return {
        "columns": {c["name"]: (repr(c["type"]), c["nullable"]) for c in found.get_columns(name)},
        "primary key": found.get_pk_constraint(name)["constrained_columns"],
        "foreign keys": sorted(keys, key=repr),
        "unique": [unique["column_names"] for unique in found.get_unique_constraints(name)],
        "indexes": sorted((i["name"], i["column_names"]) for i in found.get_indexes(name)),
    }


def test_event_numbers_are_never_used_again(url: str) -> None:
    with Store.open(url) as store:
        lease = begun(store)
        last = store.events("quick")[-1].id
        store.release(lease, NOW)
        store.delete_study("quick")
        begun(store)
        assert store.events("quick")[0].id > last


def test_a_store_of_the_first_schema_is_upgraded_and_read(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_SCHEMA.read_text())
    connection.close()
    with Store.open(str(path)) as store:
        record = store.study("quick")
        assert record.study == make_study()
        assert (record.state, record.message) == (StudyState.STOPPED, "asked to")
        assert (record.hours, record.requested) == (0.5, Request.DRAIN)
        assert record.environment == {"python": "3.11"}
        assert store.trials("quick") == (completed(0), measured(1), waiting(2))
        assert store.plan("quick", 0) == layers()
        assert store.front("quick") == make_front(1, (0,))
        assert store.holder("quick") is None
        assert [event.kind for event in store.events("quick")][:2] == [EventKind.CREATED, EventKind.LEASE]
        lease = store.acquire("quick", "me", 60.0, NOW + 100)
        assert lease.epoch == 2
        assert store.save_trial(lease, completed(1), EventKind.COMPLETED, NOW + 100)
    with Store.open(str(path), read_only=True) as store:
        assert store.trial("quick", 1) == completed(1)


def _add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE study ADD COLUMN colour TEXT NOT NULL DEFAULT 'green'"))


def _fail(connection: Connection) -> None:
    _add_column(connection)
    connection.execute(text("ALTER TABLE nowhere ADD COLUMN colour TEXT"))


def _with(monkeypatch: pytest.MonkeyPatch, *more: Migration) -> None:
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, *more))


def test_a_new_migration_is_applied_once_and_keeps_what_is_there(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(url) as store:
        begun(store)
    _with(monkeypatch, Migration(3, "colours", _add_column))
    for _ in range(2):
        with Store.open(url) as store:
            assert store.schema == "3 colours"
            assert store.study("quick").study == make_study()
    assert scalars(url, "SELECT colour FROM study") == ["green"]


def test_a_migration_that_fails_leaves_the_store_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(url) as store:
        begun(store)
    with monkeypatch.context() as patch:
        _with(patch, Migration(3, "broken", _fail))
        with pytest.raises(StoreError, match="nowhere"):
            Store.open(url)
    with Store.open(url) as store:
        assert store.schema == "2 leases of trials"
        assert store.study("quick").study == make_study()
    _with(monkeypatch, Migration(3, "colours", _add_column))
    Store.open(url).close()
    assert scalars(url, "SELECT colour FROM study") == ["green"]


def test_an_older_store_cannot_be_read_only_but_says_how_to_upgrade(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(url).close()
    _with(monkeypatch, Migration(3, "colours", _add_column))
    with pytest.raises(StoreError, match=r"older version(?s:.*)hpo storage upgrade"):
        Store.open(url, read_only=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_store_is_refused_and_left_alone(url: str, read_only: bool) -> None:
    Store.open(url).close()
    execute(url, "INSERT INTO hpo_migration VALUES (3, 'from the future', 0)", "ALTER TABLE plan ADD x TEXT")
    with pytest.raises(StoreError, match=r"newer than this version.*step 3 \(from the future\)") as caught:
        Store.open(url, read_only=read_only)
    assert "pip install -U compression-hpo" in caught.value.hint
    assert scalars(url, "SELECT name FROM hpo_migration ORDER BY number") == [
        "first tables",
        "leases of trials",
        "from the future",
    ]


def test_tables_of_another_application_are_not_touched(url: str) -> None:
    execute(url, "CREATE TABLE study (id INTEGER)")
    with pytest.raises(StoreError, match=r"tables called study that are not ours(?s:.*)search_path"):
        Store.open(url)
    assert scalars(url, "SELECT count(*) FROM study") == [0]


def test_the_tables_of_optuna_and_of_alembic_are_no_hindrance(url: str) -> None:
    execute(url, "CREATE TABLE alembic_version (version_num TEXT)", "CREATE TABLE studies (study_id INTEGER)")
    with Store.open(url) as store:
        begun(store)
    assert scalars(url, "SELECT count(*) FROM alembic_version") == [0]
