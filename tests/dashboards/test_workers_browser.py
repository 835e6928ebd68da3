"""The workers page in Chromium: who runs what, a bar that opens its trial, a coordinator that is gone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hpo.store.store import Store
from hpo.store.values import EventKind
from tests.dashboards.browsing import OVERFLOW, PHONE, browser, page, path_at
from tests.dashboards.serving import served
from tests.dashboards.working import BEGIN, write_working

__all__ = ["browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

BARS = "#workers-timeline .barlayer .point path"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, str]]:
    url = write_working(tmp_path / "live.db")
    with served(url) as address:
        yield url, path_at(address, "/study/working/workers")


def test_workers_are_shown_and_news_of_them_comes_by_itself(live: tuple[str, str], page: Page) -> None:
    url, address = live
    page.goto(address)
    table = page.locator("#workers-table")
    expect(table.locator("tr", has_text="worker-0")).to_contain_text("trial 2, 1 stage done")
    expect(table).to_contain_text("the worker died")
    expect(page.locator(BARS)).to_have_count(5)
    with Store.open(url) as store:
        lease = store.acquire("working", "node-7:4242", 3600.0, time.time())
        two = store.trial("working", 2)
        store.save_trial(lease, two.completed(time.time()), EventKind.COMPLETED, time.time())
    expect(table.locator("tr", has_text="worker-0")).to_contain_text("nothing")
    expect(page.locator("#workers-caption")).to_contain_text("3 completed")


def test_a_click_on_a_bar_opens_its_trial(live: tuple[str, str], page: Page) -> None:
    page.goto(live[1])
    bar = page.locator(BARS).first
    expect(bar).to_be_visible()
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator("#workers-timeline .hovertext")).to_contain_text("completed")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/study/working/trial/*")


def test_a_coordinator_that_dies_while_one_looks_is_said(tmp_path: Path, page: Page) -> None:
    url = write_working(tmp_path / "hpo.db", lease_s=time.time() - BEGIN + 5)
    with served(url) as address:
        page.goto(path_at(address, "/study/working/workers"))
        expect(page.get_by_text("The coordinator is gone")).to_be_visible()
        expect(page.get_by_text("hpo resume working")).to_be_visible()


def test_a_study_that_is_deleted_while_it_is_shown_is_said(tmp_path: Path, page: Page) -> None:
    url = write_working(tmp_path / "hpo.db", lease_s=1.0)
    with served(url) as address:
        page.goto(path_at(address, "/study/working/workers"))
        expect(page.locator(BARS)).to_have_count(5)
        with Store.open(url) as store:
            store.delete_study("working")
        expect(page.locator("#workers-notice")).to_contain_text("there is no study 'working'")
        expect(page.locator(BARS)).to_have_count(5)


def test_the_workers_page_fits_a_phone(live: tuple[str, str], page: Page) -> None:
    page.set_viewport_size(PHONE)
    page.goto(live[1])
    expect(page.locator(BARS).first).to_be_visible()
    assert page.evaluate(OVERFLOW) <= 0
