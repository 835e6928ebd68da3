"""axe-core finds nothing serious on any page, in light and in dark; the keyboard reaches what there is."""

from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from dashboards.report import write_files
from hpo.store.store import Store
from tests.dashboards.browsing import address, browser, page, path_at

__all__ = ["address", "browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, Scheme] = ("light", "dark")

PAGES = {
    "/": ".cards, .ag-row",
    "/study/halfway": "#front[data-settled]",
    "/study/halfway/search": ".js-plotly-plot .main-svg",
    "/study/halfway/workers": ".js-plotly-plot .main-svg",
    "/study/halfway/trial/5": "#plan-graph .main-svg",
    "/study/halfway/trial/24": "h1",
    "/compare?study=halfway&study=halfway": "h1",
    "/study/nowhere": ".notice",
}
"""Path -> what is there once the page is."""


def serious(page: Page) -> list[str]:
    """Return the rules that axe-core sees broken seriously, each with the first element that breaks it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{broken['id']} ({broken['help']}): {broken['nodes'][0]['html'][:200]}"
        for broken in found
        if broken["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious(page: Page, address: str, path: str, scheme: Scheme) -> None:
    page.emulate_media(color_scheme=scheme)
    where, _, query = path.partition("?")
    page.goto(path_at(address, where) + (f"&{query}" if query else ""))
    expect(page.locator(PAGES[path]).first).to_be_visible()
    page.wait_for_timeout(500)  # the table and the heavier figures follow
    assert serious(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_report_has_nothing_serious_either(
    page: Page, store_url: str, tmp_path: Path, scheme: Scheme
) -> None:
    out = tmp_path / "report.html"
    with Store.open(store_url, read_only=True) as store:
        write_files(store, "halfway", out)
    page.emulate_media(color_scheme=scheme)
    page.goto(out.as_uri())
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert serious(page) == []


def test_the_keyboard_alone_gets_from_the_studies_to_a_trial(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("link", name="halfway").first).to_be_visible()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href') || ''") == "/study/halfway":
            break
    page.keyboard.press("Enter")
    expect(page.locator("#front[data-settled]")).to_be_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if "/trial/" in page.evaluate("document.activeElement.getAttribute('href') || ''"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Trial", exact=False).first).to_be_visible()
    assert "/trial/" in page.url


def test_every_page_says_what_it_is(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    for path in PAGES:
        where, _, query = path.partition("?")
        page.goto(path_at(address, where) + (f"&{query}" if query else ""))
        expect(page.locator("main")).not_to_be_empty()
        assert page.locator("main").count() == 1
    context.close()
