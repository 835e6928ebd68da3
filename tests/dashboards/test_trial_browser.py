"""The page of a trial in Chromium: its switch, its table, its links, and that it lives."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import StageTime
from tests.dashboards.browsing import OVERFLOW, PHONE, browser, page, path_at
from tests.dashboards.serving import served
from tests.dashboards.storied import CHILD, DENSE, FAILED, MOVED, NAME, NASTY, PARENT, RUNNING, write_story
from tests.dashboards.synthetic import START

__all__ = ["browser", "page"]  # fixtures

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_story(tmp_path_factory.mktemp("story") / "story.db")) as address:
        yield address


def open_trial(page: Page, address: str, number: int) -> None:
    page.goto(path_at(address, f"/study/{NAME}/trial/{number}"))
    expect(page.get_by_role("heading", name=f"Trial {number}", exact=True)).to_be_visible()


def test_the_plan_can_be_seen_by_bytes_and_read_as_a_table(page: Page, story: str) -> None:
    open_trial(page, story, MOVED)
    title = page.locator("#plan-graph .g-xtitle")
    expect(title).to_contain_text("weights kept")
    page.get_by_label("share of bytes kept").check()
    expect(title).to_contain_text("bytes kept")
    page.get_by_text("The same as a table").first.click()
    row = page.get_by_role("row", name="model.layers.0.q_proj")
    expect(row).to_contain_text("packed, 4 bits, groups of 64")
    expect(row).to_contain_text("25.0 %")


def test_the_command_to_export_can_be_copied(page: Page, story: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_trial(page, story, PARENT)
    page.get_by_title("copy the command").click()
    copied = page.evaluate_handle("navigator.clipboard.readText()").json_value()
    assert copied == f"hpo export {NAME} {PARENT} --out {NAME}-{PARENT}"


def test_healing_and_stages_are_drawn(page: Page, story: str) -> None:
    open_trial(page, story, PARENT)
    expect(page.locator("#healing-graph .scatterlayer .trace")).to_have_count(2)
    expect(page.locator("#healing-graph .points path")).to_have_count(3)
    expect(page.locator("#stages-graph .bars path")).to_have_count(4)
    open_trial(page, story, CHILD)
    expect(page.locator("#healing-graph .y2title")).to_contain_text("distil")


def test_one_walks_from_trial_to_trial_by_their_links(page: Page, story: str) -> None:
    open_trial(page, story, CHILD)
    page.locator(".lineage").get_by_role("link", name=f"trial {PARENT}").click()
    expect(page.get_by_role("heading", name=f"Trial {PARENT}", exact=True)).to_be_visible()
    page.get_by_role("link", name="‹ previous").click()
    expect(page.get_by_role("heading", name=f"Trial {DENSE}", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="‹ previous")).to_have_count(0)
    page.get_by_role("link", name="next ›").click()
    expect(page.get_by_role("heading", name=f"Trial {PARENT}", exact=True)).to_be_visible()


def test_a_message_that_wants_to_be_markup_is_shown_as_it_is(page: Page, story: str) -> None:
    open_trial(page, story, FAILED)
    expect(page.locator(".notice-error")).to_contain_text(NASTY.strip())
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("number", [DENSE, PARENT, FAILED, RUNNING])
def test_the_page_fits_a_phone(page: Page, story: str, number: int) -> None:
    page.set_viewport_size(PHONE)
    open_trial(page, story, number)
    page.wait_for_timeout(300)
    assert page.evaluate(OVERFLOW) <= 0


def test_headings_come_in_order_and_every_figure_and_control_has_a_name(page: Page, story: str) -> None:
    open_trial(page, story, PARENT)
    expect(page.locator("#stages-graph .bars path")).to_have_count(4)
    levels = page.eval_on_selector_all("main :is(h1, h2, h3)", "all => all.map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    graphs = page.eval_on_selector_all(
        "main .dash-graph", "all => all.map((g) => g.closest('[role=figure]')?.ariaLabel || '')"
    )
    assert len(graphs) == 3
    assert all(graphs)
    assert page.locator("main th:not([scope])").count() == 0
    assert (
        page.locator("main input:not([id])").evaluate_all(
            "all => all.filter((input) => !input.closest('label')).length"
        )
        == 0
    )


def test_a_running_trial_moves_on_by_itself_and_the_plan_stays_as_it_is_looked_at(
    page: Page, tmp_path: Path
) -> None:
    url = write_story(tmp_path / "live.db")
    with served(url) as address:
        open_trial(page, address, RUNNING)
        expect(page.get_by_text("No stage is done yet.")).to_be_visible()
        page.get_by_label("share of bytes kept").check()
        expect(page.locator("#plan-graph .g-xtitle")).to_contain_text("bytes kept")
        with Store.open(url) as store:
            lease = store.acquire(NAME, "test", 600.0, START + 800)
            running = store.trial(NAME, RUNNING).advanced(StageTime("heal", 4.0))
            payload = {"stage": "heal", "seconds": 4.0}
            store.save_trial(lease, running, EventKind.STAGE_DONE, START + 801, payload)
        expect(page.get_by_text("Done so far: heal.")).to_be_visible()
        expect(page.locator("#plan-graph .g-xtitle")).to_contain_text("bytes kept")
        with Store.open(url) as store:
            store.release(store.acquire(NAME, "test", 600.0, START + 802), START + 803)
            store.delete_study(NAME)
        expect(page.get_by_text(f"there is no study '{NAME}'")).to_be_visible()
        expect(page.get_by_text("Done so far: heal.")).to_be_visible()
