"""A report in Chromium, opened from its file: figures, what is folded, pictures to save, light and dark."""

from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from dashboards.report import write_files
from hpo.store.store import Store
from tests.dashboards.browsing import OVERFLOW, PHONE, browser, page
from tests.dashboards.storied import write_story

__all__ = ["browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

_FIGURE = "#front-weight_memory"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    with Store.open(write_story(directory / "story.db")) as store:
        write_files(store, "storied", directory / "storied.html")
    return directory / "storied.html"


def test_a_report_opens_from_a_file_without_complaint_on_a_phone(
    page: Page, store_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    with Store.open(store_url, read_only=True) as store:
        write_files(store, "halfway", out)
    page.set_viewport_size(PHONE)
    page.goto(out.as_uri())
    for name in ("front-prefill_latency", "front-energy", "matrix", "hypervolume", "plan-12"):
        expect(page.locator(f"#{name} .main-svg").first).to_be_visible()
    assert page.locator("[data-title*='cloud' i], [data-title*='share' i]").count() == 0
    assert page.evaluate(OVERFLOW) <= 0


def test_what_is_folded_away_is_drawn_when_it_is_opened(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    expect(page.locator("#plan-3 .main-svg").first).to_be_visible()
    assert page.locator("#healing-1 .main-svg").count() == 0
    page.get_by_text("Trial 1: svd").click()
    expect(page.locator("#healing-1 .points path")).to_have_count(3)
    width = page.locator("#healing-1 .main-svg").first.bounding_box()
    section = page.locator("#healing-1").bounding_box()
    assert width is not None
    assert section is not None
    assert abs(width["width"] - section["width"]) < 2, "it fills the room that it has once open"


def test_a_figure_can_be_saved_as_a_picture_under_the_policy_of_the_file(
    page: Page, report: Path, tmp_path: Path
) -> None:
    page.goto(report.as_uri())
    page.locator(_FIGURE).hover()
    button = page.locator(f"{_FIGURE} .modebar-btn[data-title*='PNG' i]")
    expect(button).to_have_count(1)
    with page.expect_download() as waiting:
        button.click()
    picture = tmp_path / "picture.png"
    waiting.value.save_as(picture)
    assert waiting.value.suggested_filename.endswith(".png")
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 5_000


@pytest.mark.parametrize(("scheme", "ground"), [("dark", "rgb(20, 23, 27)"), ("light", "rgb(246, 247, 249)")])
def test_a_report_is_light_or_dark_as_the_system_is(
    browser: Browser, report: Path, scheme: str, ground: str
) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    page.goto(report.as_uri())
    expect(page.locator("body")).to_have_css("background-color", ground)
    ink = page.locator("body").evaluate("body => getComputedStyle(body).color")
    expect(page.locator(f"{_FIGURE} .xtick text").first).to_have_css("fill", ink)
    context.close()


def test_headings_come_in_order_and_every_figure_has_a_name(page: Page, report: Path) -> None:
    page.goto(report.as_uri())
    levels = page.eval_on_selector_all("main :is(h1, h2, h3)", "all => all.map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.locator(".figure:not([aria-label])").count() == 0
    assert page.locator("th:not([scope])").count() == 0
