"""The list of studies in Chromium: find, sort, choose two, compare them; live."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hpo.store.store import Store
from hpo.store.values import StudyState
from tests.dashboards.browsing import OVERFLOW, PHONE, browser, page
from tests.dashboards.seeds import write_seeds
from tests.dashboards.serving import served
from tests.dashboards.synthetic import ENVIRONMENT, START, study_named

__all__ = ["browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

TITLES = ".cards .card-title"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A store that may be written to, and the dashboard in front of it."""
    url = write_seeds(tmp_path / "live.db")
    with served(url) as address:
        yield url, address


def test_studies_are_found_sorted_chosen_and_compared(live: tuple[str, str], page: Page) -> None:
    page.goto(live[1])
    expect(page.locator(TITLES)).to_have_count(6)
    order = page.get_by_role("button", name="sort by last change")  # by its label and its value
    order.focus()
    order.press("Enter")
    page.locator(".dash-dropdown-option", has_text="hypervolume").click()
    expect(page.locator(TITLES).first).to_have_text("seed-1")
    page.get_by_role("checkbox", name="compare empty").check()
    page.get_by_label("filter").fill("SEED")
    expect(page.get_by_text("3 of 6 studies")).to_be_visible()
    expect(page.get_by_text("Tick one more to compare.")).to_be_visible()
    page.get_by_role("checkbox", name="compare seed-1").check()
    expect(page.get_by_role("link", name="Compare 2 studies")).to_be_visible()
    page.get_by_label("filter").fill("")
    expect(page.locator(TITLES)).to_have_count(6)
    expect(page.get_by_role("checkbox", name="compare empty")).to_be_checked()
    page.get_by_role("checkbox", name="compare empty").uncheck()
    page.get_by_role("checkbox", name="compare seed-0").check()
    page.get_by_role("link", name="Compare 2 studies").click()
    page.wait_for_url("**/compare?study=seed-1&study=seed-0")
    expect(page.get_by_role("heading", name="Compare")).to_be_visible()
    expect(page.locator("#compare-numbers")).to_contain_text("all together")


def test_the_sparkline_is_drawn_and_says_what_it_shows(live: tuple[str, str], page: Page) -> None:
    page.goto(live[1])
    drawn = page.locator("img.spark").first
    expect(drawn).to_be_visible()
    assert drawn.evaluate("image => image.complete && image.naturalWidth") == 120
    assert "hypervolume:" in (drawn.get_attribute("alt") or "")


def test_changes_come_in_by_themselves_and_ticks_stay(live: tuple[str, str], page: Page) -> None:
    url, address = live
    page.goto(address)
    page.get_by_role("checkbox", name="compare seed-0").check()
    card = page.locator(".cards > li", has_text="seed-0")
    expect(card.locator(".badge")).to_have_text("created")
    with Store.open(url) as store:
        lease = store.acquire("seed-0", "test", 1e9, START + 700)
        store.set_state(lease, StudyState.RUNNING, "", START + 700)
    expect(card.locator(".badge")).to_have_text("running")
    expect(page.get_by_role("checkbox", name="compare seed-0")).to_be_checked()
    with Store.open(url) as store:
        store.create_study(study_named("newcomer"), ENVIRONMENT, START + 800)
        store.delete_study("empty")
    expect(page.get_by_role("link", name="newcomer")).to_be_visible()
    expect(page.get_by_role("link", name="empty")).to_have_count(0)
    expect(page.get_by_role("checkbox", name="compare seed-0")).to_be_checked()


def test_a_list_of_many_studies_shows_more_when_asked(tmp_path: Path, page: Page) -> None:
    url = f"sqlite:///{tmp_path / 'many.db'}"
    with Store.open(url) as store:
        for number in range(30):
            store.create_study(study_named(f"study.{number}...x"), ENVIRONMENT, START + number)
    with served(url) as address:
        page.goto(address)
        expect(page.locator(TITLES)).to_have_count(24)
        page.get_by_role("button", name="Show more").click()
        expect(page.locator(TITLES)).to_have_count(30)
        expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_the_list_fits_a_phone(live: tuple[str, str], page: Page) -> None:
    url, address = live
    with Store.open(url) as store:
        question = "<b>How</b> " + "w" * 300 + " 🙂"
        store.create_study(study_named("n" * 120, question), ENVIRONMENT, START + 800)
    page.set_viewport_size(PHONE)
    page.goto(address)
    expect(page.get_by_text("w" * 300)).to_be_visible()
    assert page.evaluate(OVERFLOW) <= 0
