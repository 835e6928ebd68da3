"""The page of a comparison in Chromium: add a study, choose axes, move the cut, keep it in the address."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hpo.store.store import Store
from tests.dashboards.browsing import OVERFLOW, PHONE, browser, page, path_at
from tests.dashboards.seeds import write_seeds
from tests.dashboards.serving import served

__all__ = ["browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

FIGURE = "#compare-graph .js-plotly-plot"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, str]]:
    url = write_seeds(tmp_path / "live.db")
    with served(url) as address:
        yield url, path_at(address, "/compare")


def asked(address: str, query: str) -> str:
    return address.replace("?", f"?{query}&")


def test_studies_axes_and_cut_are_chosen_and_stand_in_the_address(live: tuple[str, str], page: Page) -> None:
    page.goto(asked(live[1], "study=seed-0&study=seed-1"))
    expect(page.locator(f"{FIGURE} .legendtext")).to_have_count(2)
    page.locator("#compare-names").click()
    page.locator(".dash-dropdown-option", has_text="seed-2").click()
    page.keyboard.press("Escape")
    expect(page.locator(f"{FIGURE} .legendtext")).to_have_count(3)
    page.get_by_label("They are runs of one thing").check()
    expect(page.locator(f"{FIGURE} .legendtext", has_text="half attain")).to_be_visible()
    page.locator("#compare-x").click()
    page.locator(".dash-dropdown-option", has_text="energy").click()
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("energy")
    page.get_by_label("cut to the same number of trials").check()
    expect(page.locator("#compare-said")).to_have_text("Each study as it was after 8 trials.")
    slider = page.get_by_role("slider")
    slider.focus()
    slider.press("ArrowLeft")
    expect(page.locator("#compare-said")).to_have_text("Each study as it was after 7 trials.")
    expect(page.locator("#compare-numbers tbody tr").first).to_contain_text("7")
    query = "study=seed-0&study=seed-1&study=seed-2&x=energy&y=perplexity&cut=trials&at=7&seeds=1"
    page.wait_for_url(f"**/compare?{query}")
    page.reload()
    expect(page.locator("#compare-said")).to_have_text("Each study as it was after 7 trials.")
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("energy")


def test_going_back_brings_the_axes_before(live: tuple[str, str], page: Page) -> None:
    page.goto(asked(live[1], "study=seed-0&study=seed-1&x=energy&y=perplexity"))
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("energy")
    page.locator("#compare-x").click()
    page.locator(".dash-dropdown-option", has_text="weight memory").click()
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("weight memory")
    page.wait_for_url("**x=weight_memory**")
    page.go_back()
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("energy")


def test_a_click_on_a_mark_opens_its_trial(live: tuple[str, str], page: Page) -> None:
    page.goto(asked(live[1], "study=seed-0&study=seed-1"))
    mark = page.locator(f"{FIGURE} .scatterlayer .trace").last.locator("path.point").last
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.locator(f"{FIGURE} .hovertext")).to_contain_text("trial")
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url("**/study/seed-*/trial/*")


def test_what_cannot_be_compared_says_why(live: tuple[str, str], page: Page) -> None:
    page.goto(asked(live[1], "study=seed-0&study=other&study=%3Cb%3Enobody%3C%2Fb%3E"))
    expect(page.get_by_text("seed-0 and other have no common objectives")).to_be_visible()
    expect(page.get_by_text("there is no study '<b>nobody</b>'")).to_be_visible()


def test_a_study_that_is_deleted_while_it_is_shown_is_said(live: tuple[str, str], page: Page) -> None:
    url, address = live
    page.goto(asked(address, "study=seed-0&study=seed-1&study=seed-2"))
    expect(page.locator(f"{FIGURE} .legendtext")).to_have_count(3)
    with Store.open(url) as store:
        store.delete_study("seed-1")
    expect(page.locator("#compare-notice")).to_contain_text("there is no study 'seed-1'")
    expect(page.locator(f"{FIGURE} .legendtext")).to_have_count(2)


def test_a_comparison_fits_a_phone(live: tuple[str, str], page: Page) -> None:
    page.set_viewport_size(PHONE)
    nasty = "%3Cscript%3E" + "x" * 300 + "%F0%9F%99%82%22%27"
    page.goto(asked(live[1], f"study=seed-0&study=seed-1&study=seed-2&study={nasty}&seeds=1&cut=hours"))
    expect(page.locator(f"{FIGURE} .legendtext").first).to_be_visible()
    expect(page.locator("#compare-numbers")).to_contain_text("all together")
    assert page.evaluate(OVERFLOW) <= 0
