"""Actions in Chromium: each asks first, and does nothing unless it is confirmed."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Dialog, Page, expect
from waitress import wasyncore

from dashboards.serve import make_server
from hpo.store.store import Store
from hpo.store.values import Request
from tests.dashboards.browsing import browser, page, path_at
from tests.dashboards.synthetic import write_study

__all__ = ["browser", "page"]  # fixtures

pytestmark = pytest.mark.browser


@pytest.fixture
def allowed(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A store whose study somebody runs, and a dashboard in front of it that may act."""
    url = write_study(tmp_path / "hpo.db")
    with Store.open(url) as store:
        store.acquire("halfway", "somebody", 600.0, time.time())
    made: tuple[Any, str] = make_server(url, "127.0.0.1", 0, allow_actions=True)
    server, address = made
    thread = Thread(target=server.run)
    thread.start()
    yield url, address
    server.task_dispatcher.shutdown(timeout=5)
    server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
    thread.join(10)


def requested(url: str) -> Request:
    with Store.open(url, read_only=True) as store:
        return store.requested("halfway")


def test_stopping_asks_first_and_is_kept_when_confirmed(page: Page, allowed: tuple[str, str]) -> None:
    url, address = allowed
    asked: list[str] = []
    page.goto(path_at(address, "/study/halfway"))

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.once("dialog", refuse)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#action-said")).to_be_empty()
    assert requested(url) is Request.NONE
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#action-said")).to_contain_text("Asked to stop.")
    assert requested(url) is Request.DRAIN
    assert asked == ["Start nothing new, and stop when the running trials are done?"]
    page.goto("about:blank")  # before the server is gone


def test_a_trial_of_ones_own_is_asked_for(page: Page, allowed: tuple[str, str]) -> None:
    url, address = allowed
    page.goto(path_at(address, "/study/halfway"))
    page.get_by_text("Add a trial of your own").click()
    page.locator("#action-values").fill("factorise: svd\nfactorise.keep_ratio: 0.4")
    page.locator("#action-values").blur()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Add the trial").click()
    expect(page.locator("#action-said")).to_contain_text("Asked for svd(keep_ratio=0.4)")
    with Store.open(url, read_only=True) as store:
        assert len(store.wishes("halfway")[0]) == 1
    page.goto("about:blank")  # before the server is gone
