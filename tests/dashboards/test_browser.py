"""End to end in Chromium: what a person sees and does, and that the browser has nothing to complain of."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hpo.store.store import Store
from tests.dashboards.browsing import OVERFLOW, PHONE, address, browser, page
from tests.dashboards.serving import served
from tests.dashboards.synthetic import START, answers, asked, candidate, completed, write_study, write_trial

__all__ = ["address", "browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

FRONT = "#front-graph .js-plotly-plot"


def study_at(address: str, study: str = "halfway") -> str:
    return address.replace("/?", f"/study/{study}?")


def test_from_the_list_of_studies_to_a_trial_and_back(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_text("28 of 40 trials")).to_be_visible()
    assert "token" not in page.url
    page.get_by_role("link", name="halfway").click()
    expect(page.locator(f"{FRONT} .scatterlayer .trace").first).to_be_visible()
    expect(page.get_by_text("knee: trial 12")).to_be_visible()
    page.locator(".ag-row", has_text="completed").first.click()
    expect(page.get_by_role("heading", name="Trial 23")).to_be_visible()
    expect(page.get_by_text("hpo export halfway 23 --out halfway-23")).to_be_visible()
    expect(page.locator("#plan-graph .bars path").first).to_be_visible()
    page.go_back()
    expect(page.locator(FRONT)).to_be_visible()


def test_a_click_on_a_mark_opens_its_trial(page: Page, address: str) -> None:
    page.goto(study_at(address))
    expect(page.locator("#front[data-settled]")).to_be_visible()
    knee = page.locator(f"{FRONT} .scatterlayer .trace").last.locator("path.point").first
    knee.scroll_into_view_if_needed()
    box = knee.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(f"{FRONT} .hovertext")).to_contain_text("trial 12")
    page.mouse.down()
    page.mouse.up()
    expect(page.get_by_role("heading", name="Trial 12")).to_be_visible()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A store that may be written to, and the dashboard in front of it."""
    url = write_study(tmp_path / "live.db")
    with served(url) as address:
        yield url, address


def test_a_new_trial_appears_by_itself_and_axes_and_filter_stay(live: tuple[str, str], page: Page) -> None:
    url, address = live
    page.goto(study_at(address).replace("?", "?x=energy&y=weight_memory&"))
    expect(page.get_by_text("28 of 40 trials")).to_be_visible()
    expect(page.locator(".ag-row[row-id='29']").first).to_be_visible()
    page.locator(".ag-header-cell[col-id='state'] .ag-header-cell-filter-button").click()
    page.locator(".ag-filter input[type='text']").first.fill("completed")
    expect(page.locator(".ag-row[row-id='29']")).to_have_count(0)
    with Store.open(url) as store:
        lease = store.acquire("halfway", "test", 600.0, START + 700)
        write_trial(store, lease, completed(asked(30, candidate(0.6), "bayesian"), answers(0.6)))
    expect(page.get_by_text("29 of 40 trials")).to_be_visible()
    expect(page.locator(".ag-row[row-id='30']").first).to_be_visible()
    expect(page.locator(".ag-row[row-id='29']")).to_have_count(0)
    expect(page.locator(f"{FRONT} .g-xtitle")).to_contain_text("energy")


def test_without_the_token_nothing_opens(browser: Browser, address: str) -> None:
    page = browser.new_page()
    answer = page.goto(address.partition("?")[0])
    assert answer is not None
    assert answer.status == 401
    expect(page.get_by_text("hpo dashboard")).to_be_visible()
    page.close()


def test_the_pages_fit_a_phone(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    for path in ("/study/halfway?", "/study/halfway/trial/5?"):
        page.goto(address.replace("/?", path))
        expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
        assert page.evaluate(OVERFLOW) <= 0


def test_the_colours_follow_the_system(page: Page, address: str) -> None:
    page.goto(address)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("body")).to_have_css("background-color", "rgb(20, 23, 27)")
    page.emulate_media(color_scheme="light")
    expect(page.locator("body")).to_have_css("background-color", "rgb(246, 247, 249)")
