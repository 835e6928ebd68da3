"""The search page in Chromium: it opens, answers, keeps up, and fits."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hpo.skill import Foretold, Skill
from hpo.store.store import Store
from hpo.store.values import EventKind
from tests.dashboards.browsing import OVERFLOW, PHONE, address, browser, page, path_at
from tests.dashboards.serving import served
from tests.dashboards.synthetic import START, answers, asked, candidate, completed, write_study, write_trial

__all__ = ["address", "browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

CURVE = "#search-hypervolume .js-plotly-plot"
SLICE = "#search-slice .js-plotly-plot"


IMPORTANCE = "#search-importance .js-plotly-plot"
LONG_MS = 20_000


def open_search(page: Page, address: str) -> None:
    """Go to the page and wait for its last part, which comes after the others and moves what is below it."""
    page.goto(path_at(address, "/study/halfway/search"))
    expect(page.locator(IMPORTANCE)).to_be_visible(timeout=LONG_MS)


def test_it_opens_from_the_study_and_shows_every_part(page: Page, address: str) -> None:
    page.goto(path_at(address, "/study/halfway"))
    page.get_by_role("link", name="Search").click()
    expect(page.locator(f"{CURVE} .scatterlayer .trace").first).to_be_visible()
    expect(page.get_by_text("Left of the budget: 12 of 40 trials.")).to_be_visible()
    expect(page.get_by_text("with 90 % confidence between")).to_be_visible()
    expect(page.get_by_text("11 of 12 trials (91.7 %) came out within the interval")).to_be_visible()
    expect(page.locator(IMPORTANCE)).to_be_visible(timeout=LONG_MS)
    expect(page.get_by_text("What matters most, for perplexity")).to_be_visible()
    expect(page.get_by_text("1 of 28 finished trials (3.6 %) stopped early")).to_be_visible()


def test_the_curve_can_be_seen_over_the_clock_and_over_hours(page: Page, address: str) -> None:
    open_search(page, address)
    expect(page.locator(f"{CURVE} .g-xtitle")).to_contain_text("finished trials")
    page.get_by_label("the clock").check()
    expect(page.locator(f"{CURVE} .g-xtitle")).to_contain_text("time since the first start")
    page.get_by_label("worker hours").check()
    expect(page.locator(f"{CURVE} .g-xtitle")).to_contain_text("worker hours")


def test_another_amount_of_work_is_answered(page: Page, address: str) -> None:
    open_search(page, address)
    outlook = page.locator("#search-outlook")
    expect(outlook).to_contain_text("1 min 24 s of work more")
    page.locator("#search-more").click()
    page.locator(".dash-dropdown-option", has_text="10 × the last 17 trials").click()
    expect(outlook).to_contain_text("14 min of work more")
    expect(page.locator(CURVE)).to_contain_text("14 min of work more, expected")


def test_another_parameter_and_objective_can_be_sliced(page: Page, address: str) -> None:
    open_search(page, address)
    expect(page.locator(f"{SLICE} .g-xtitle")).to_have_text("factorise")
    page.locator("#search-parameter").click()
    page.locator(".dash-dropdown-option", has_text="factorise.keep_ratio").click()
    expect(page.locator(f"{SLICE} .g-xtitle")).to_have_text("factorise.keep_ratio")
    page.locator("#search-objective").click()
    page.locator(".dash-dropdown-option", has_text="weight memory").click()
    expect(page.locator(f"{SLICE} .g-ytitle")).to_contain_text("weight memory [MiB]")
    expect(page.locator("#search-slice-words")).to_contain_text("The best weight memory")
    page.wait_for_url("**/search?*parameter=factorise.keep_ratio&objective=weight_memory")
    page.reload()
    expect(page.locator(f"{SLICE} .g-xtitle")).to_have_text("factorise.keep_ratio", timeout=LONG_MS)
    expect(page.locator(f"{SLICE} .g-ytitle")).to_contain_text("weight memory [MiB]")


def test_a_point_of_a_slice_opens_its_trial(page: Page, address: str) -> None:
    open_search(page, address)
    points = page.locator(f"{SLICE} .scatterlayer .points path")
    expect(points.first).to_be_visible()
    box = points.first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.up()
    expect(page.get_by_role("heading", name="Trial ")).to_be_visible()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A store that may be written to, and the dashboard in front of it."""
    url = write_study(tmp_path / "live.db")
    with served(url) as address:
        yield url, address


def test_a_new_trial_and_a_model_judged_anew_appear_by_themselves(live: tuple[str, str], page: Page) -> None:
    url, address = live
    open_search(page, address)
    expect(page.get_by_text("after 28 finished trials")).to_be_visible()
    page.locator("#search-parameter").click()
    page.locator(".dash-dropdown-option", has_text="factorise.keep_ratio").click()
    said = Foretold(30, measured=6.0, expected=5.8, low=5.0, high=6.5)
    skill = Skill("perplexity", 40, 0.2, 0.5, (said, Foretold(5, 9.0, 6.0, 5.0, 7.0)))
    with Store.open(url) as store:
        lease = store.acquire("halfway", "test", 600.0, START + 700)
        store.note(lease, EventKind.MODEL, START + 701, payload={"skills": [skill.to_mapping()]})
        write_trial(store, lease, completed(asked(30, candidate(0.6), "bayesian"), answers(0.6)))
    expect(page.get_by_text("after 29 finished trials")).to_be_visible(timeout=LONG_MS)
    expect(page.get_by_text("so it is too sure of itself")).to_be_visible()
    expect(page.locator("#search-of-perplexity .scatterlayer .trace").first).to_be_visible()
    expect(page.locator(f"{SLICE} .g-xtitle")).to_have_text("factorise.keep_ratio")


def test_it_fits_a_phone(page: Page, address: str) -> None:
    page.set_viewport_size(PHONE)
    open_search(page, address)
    assert page.evaluate(OVERFLOW) <= 0


def test_every_control_has_a_name_and_headings_come_in_order(page: Page, address: str) -> None:
    open_search(page, address)
    for name in ("What would more buy?", "Parameter", "Objective"):
        expect(page.get_by_role("group", name=name).get_by_role("button")).to_be_visible()
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
