"""Stores that are locked, of another version or not there: every page says so, and nothing is written."""

import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from werkzeug.test import Client

from dashboards.app import create_app
from dashboards.security import Access
from hpo.store import migrations
from hpo.store.store import Store
from hpo.trial import Cause
from tests.dashboards.conftest import TOKEN
from tests.dashboards.synthetic import START, asked, candidate, study_named, write_study
from tests.dashboards.synthetic import write_trial as written
from tests.dashboards.test_callbacks import HEADERS, post

PAGES = ("/", "/study/halfway", "/study/halfway/search", "/study/halfway/workers", "/study/halfway/trial/5")


def page(app: Dash, path: str, search: str = "") -> str:
    """Return a page as the browser is sent it."""
    answer: Any = post(app, "page.children", "url.pathname", url__pathname=path, url__search=search)
    return json.dumps(answer, ensure_ascii=False)


def data(app: Dash, name: str = "halfway") -> str:
    return Client(app.server).get(f"/data/{name}/trials", headers=HEADERS).text


def app_of(url: str) -> Dash:
    return create_app(url, Access(TOKEN, "c"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_study(tmp_path / "hpo.db")
    return tmp_path / "hpo.db"


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("at", [*PAGES, "/compare"])
def test_an_older_store_is_to_be_upgraded(path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to_come = migrations.Migration(9999, "still to come", lambda connection: None)
    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, to_come))
    search = "?study=halfway&study=other" if at == "/compare" else ""
    assert "hpo storage upgrade" in page(app_of(f"sqlite:///{path}"), at, search)


def test_a_newer_store_wants_a_newer_version(path: Path) -> None:
    change(path, "INSERT INTO hpo_migration VALUES (9999, 'from_the_future', 1.0)")
    app = app_of(f"sqlite:///{path}")
    for at in PAGES:
        assert "newer" in page(app, at)
    assert "newer" in data(app)


def test_a_file_that_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "hpo.db"
    path.write_bytes(b"no database at all" * 100)
    app = app_of(f"sqlite:///{path}")
    assert "notice-error" in page(app, "/study/halfway")
    assert "message" in json.loads(data(app))


def test_while_somebody_writes_the_pages_are_read_all_the_same(path: Path) -> None:
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    app = app_of(f"sqlite:///{path}")
    for at in PAGES:
        shown = page(app, at)
        assert "halfway" in shown
        assert "locked" not in shown
    assert "columns" in json.loads(data(app))
    writer.execute("ROLLBACK")
    writer.close()


def test_a_store_that_appears_later_is_found_without_a_restart(tmp_path: Path) -> None:
    app = app_of(f"sqlite:///{tmp_path}/hpo.db")
    assert "there is no study store at" in page(app, "/study/halfway")
    write_study(tmp_path / "hpo.db")
    assert "notice-error" not in page(app, "/study/halfway")


def test_looking_at_everything_writes_nothing(path: Path) -> None:
    def digest() -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    before = digest()
    app = app_of(f"sqlite:///{path}")
    for at in PAGES:
        page(app, at)
    page(app, "/compare", "?study=halfway&study=nobody")
    data(app)
    for kind in ("csv", "json"):
        Client(app.server).get(f"/data/halfway/download.{kind}", headers=HEADERS)
    assert digest() == before


def test_only_failed_trials_have_every_page(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hpo.db"
    with Store.open(url) as store:
        store.create_study(study_named("broken"), {}, START)
        lease = store.acquire("broken", "test", 600.0, START)
        for number in range(3):
            trial = asked(number, candidate(0.5 + number / 10), "x")
            written(store, lease, trial.failed(Cause.NOT_A_NUMBER, "the loss became NaN", START))
        store.release(lease, START)
    app = app_of(url)
    for tail in ("", "/search", "/workers", "/trial/0"):
        shown = page(app, f"/study/broken{tail}")
        assert "broken" in shown
        assert "dashboard failed" not in shown
    assert "the loss became NaN" in page(app, "/study/broken")


def test_a_value_that_is_no_number_in_the_file_does_not_break_the_pages(path: Path) -> None:
    # The store refuses such values; a file that was changed by hand may hold them.
    change(path, "UPDATE measurement SET value = 9e999 WHERE trial = 5 AND metric = 'perplexity'")
    app = app_of(f"sqlite:///{path}")
    for at in PAGES:
        assert "finite" in page(app, at) or "notice-error" not in page(app, at)
