"""The page of a front in Chromium: axes, limits, brushing, what is recommended, what comes in meanwhile."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from dashboards.front import standing_of
from dashboards.source import StudySource
from hpo.metric import METRICS
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import Cause
from tests.dashboards.browsing import OVERFLOW, PHONE, address, browser, page, path_at
from tests.dashboards.serving import served
from tests.dashboards.synthetic import (
    START,
    answers,
    asked,
    candidate,
    completed,
    measured,
    study_named,
    write_study,
    write_trial,
)

__all__ = ["address", "browser", "page"]  # fixtures

pytestmark = pytest.mark.browser

FIGURE = "#front-graph .js-plotly-plot"
SETTLED = "#front[data-settled]"
WALL: ViewportSize = {"width": 2560, "height": 1300}


def opened(page: Page, address: str, query: str = "", study: str = "halfway") -> None:
    page.goto(path_at(address, f"/study/{study}") + (f"&{query}" if query else ""))
    expect(page.locator(SETTLED)).to_be_visible()


def traces(page: Page) -> dict[str, list[int]]:
    """Return name -> trial numbers of the marks that the figure shows."""
    found: dict[str, list[int]] = page.evaluate(
        "Object.fromEntries(document.querySelector('#front-graph .js-plotly-plot').data"
        ".map((trace) => [trace.name, trace.customdata || []]))"
    )
    return found


def set_limit(page: Page, metric: str, text: str) -> None:
    field = page.locator(f"#limit-{metric} ~ .limit-field")
    before = page.locator("#front").get_attribute("data-settled")
    field.fill(text)
    field.press("Enter")
    expect(page.locator("#front")).not_to_have_attribute("data-settled", before or "")


def test_the_browsers_front_is_the_servers(page: Page, address: str, source: StudySource) -> None:
    opened(page, address)
    now = source.snapshot("halfway")
    standings = standing_of(now.record.study.objectives, now.trials)
    anchors = {0, 1, 2}
    found = traces(page)
    assert (
        set(found["front of all 4 objectives"]) == {n for n, s in standings.items() if s == "front"} - anchors
    )
    assert set(found["anchors"]) == anchors
    assert set(found["dominated"]) == {n for n, s in standings.items() if s == "dominated"} - anchors
    size = sum(standing == "front" for standing in standings.values())
    expect(page.get_by_text(f"{size} of them are the front")).to_be_visible()
    expect(page.get_by_text("Not shown: 3 failed, 1 stopped, 1 running, 1 waiting.")).to_be_visible()


def test_axes_colour_and_size_stand_in_the_address_and_come_back_from_it(page: Page, address: str) -> None:
    opened(page, address)
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("prefill latency")
    page.locator("#front-x").select_option(label="energy")
    page.locator("#front-colour").select_option(label="weight memory")
    page.locator("#front-size").select_option(label="perplexity")
    page.locator("#front-logY").uncheck()
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("energy [mJ per token] (modelled)")
    expect(page.locator(f"{FIGURE} .colorbar")).to_be_visible()
    assert page.url.endswith("?x=energy&y=perplexity&colour=weight_memory&size=perplexity&scale_y=linear")
    page.reload()
    expect(page.locator(SETTLED)).to_be_visible()
    expect(page.locator(f"{FIGURE} .g-xtitle")).to_contain_text("energy")
    expect(page.locator("#front-size")).to_have_value("0")
    expect(page.locator("#front-logY")).not_to_be_checked()


def test_one_metric_is_never_shown_against_itself(page: Page, address: str) -> None:
    opened(page, address, "x=energy&y=perplexity")
    page.locator("#front-x").select_option(label="perplexity")
    expect(page.locator(f"{FIGURE} .g-ytitle")).to_contain_text("energy")


def test_a_limit_filters_figure_table_and_recommendation(
    page: Page, address: str, source: StudySource
) -> None:
    opened(page, address)
    set_limit(page, "prefill_latency", "3.2")
    trials = source.snapshot("halfway").trials
    kept = {t.number for t in trials if (value := t.value("prefill_latency")) is not None and value <= 3.2}
    found = traces(page)
    front = set(found["front of all 4 objectives"])
    assert front
    assert front <= kept
    assert not set(found["beyond a limit"]) & (kept - {2})
    expect(page.locator(".limit-said").nth(1)).to_have_text("ms = 0.64 × dense")
    assert page.url.endswith("limit=prefill_latency%3C%3D3.2")
    best = page.locator("#front-recommended a").first.inner_text()
    number = int(best.removeprefix("trial "))
    assert number in front
    expect(page.locator("#recommended-command")).to_have_text(
        f"hpo export halfway {number} --out halfway-{number}"
    )
    shown = page.locator(".trial-table .ag-center-cols-container .ag-row")
    assert {int(row.get_attribute("row-id") or "") for row in shown.all()} <= kept
    page.reload()
    expect(page.locator(SETTLED)).to_be_visible()
    assert set(traces(page)["front of all 4 objectives"]) == front
    page.get_by_role("button", name="No limits").click()
    expect(page).to_have_url(re.compile(r"\?x=[^&]*&y=[^&]*$"))


def test_a_slider_moves_by_the_keyboard_and_says_where_it_is(page: Page, address: str) -> None:
    opened(page, address)
    slider = page.get_by_role("slider", name="perplexity ≤")
    assert slider.get_attribute("aria-valuetext") == "no limit"
    slider.focus()
    for _ in range(60):
        page.keyboard.press("ArrowLeft")
    said = slider.get_attribute("aria-valuetext") or ""
    assert "ppl" in said
    assert "× dense" in said
    expect(page.locator("#front-aside")).to_contain_text("keep these limits")
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "no limit"


def test_limits_that_nothing_keeps_name_the_nearest_trial(page: Page, address: str) -> None:
    opened(page, address)
    set_limit(page, "perplexity", "1")
    expect(page.locator("#front-recommended")).to_contain_text(
        "No trial keeps all of these limits. The nearest is trial 0"
    )
    expect(page.locator("#front-recommended")).to_contain_text("% beyond")
    set_limit(page, "perplexity", "nonsense")
    expect(page.locator("#front-recommended")).to_contain_text("trades best")


def test_the_command_is_copied(browser: Browser, address: str) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    opened(page, address)
    command = page.locator("#recommended-command").inner_text()
    page.locator("#front-recommended").get_by_role("button", name="Copy").click()
    expect(page.get_by_text("copied", exact=True)).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == command
    context.close()


def test_what_is_dragged_over_an_axis_becomes_its_limit(page: Page, address: str) -> None:
    opened(page, address)
    area = page.locator("#front-parallel .nsewdrag").bounding_box()
    assert area is not None
    across = area["x"] + area["width"] * 0.35 / (4 - 0.75 + 0.35)  # where the first axis stands
    page.locator("#front-parallel").scroll_into_view_if_needed()
    area = page.locator("#front-parallel .nsewdrag").bounding_box() or area
    page.mouse.move(across - 20, area["y"] + 2)
    page.mouse.down()
    page.mouse.move(across + 20, area["y"] + area["height"] / 2, steps=6)
    page.mouse.up()
    expect(page.locator("#limit-perplexity ~ .limit-field")).not_to_have_value("")
    expect(page.locator("#limit-prefill_latency ~ .limit-field")).to_have_value("")


def test_selecting_marks_filters_the_table(page: Page, address: str) -> None:
    opened(page, address)
    page.get_by_label("select by dragging").check()
    page.locator(FIGURE).scroll_into_view_if_needed()
    area = page.locator(f"{FIGURE} .nsewdrag").bounding_box()
    assert area is not None
    before = page.locator(".trial-table .ag-center-cols-container .ag-row").count()
    page.mouse.move(area["x"] + area["width"] * 0.7, area["y"] + area["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(area["x"] + area["width"] - 3, area["y"] + area["height"] - 3, steps=6)
    page.mouse.up()
    expect(page.locator(".trial-table .ag-row[row-id='29']")).to_have_count(0)
    assert 0 < page.locator(".trial-table .ag-center-cols-container .ag-row").count() <= before


def test_every_pair_is_drawn_when_it_is_asked_for(page: Page, address: str) -> None:
    opened(page, address)
    expect(page.locator("#front-matrix .plot")).to_have_count(0)
    page.get_by_text("Every pair of objectives").click()
    expect(page.locator("#front-matrix .cartesianlayer > .subplot")).to_have_count(6)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A store that may be written to, and the dashboard in front of it."""
    url = write_study(tmp_path / "live.db")
    with served(url) as address:
        yield url, address


def test_a_new_trial_is_drawn_by_itself_and_limits_stay(live: tuple[str, str], page: Page) -> None:
    url, address = live
    opened(page, address, "limit=prefill_latency%3C%3D3.9")
    assert not any(30 in numbers for numbers in traces(page).values())
    drawn = page.locator("#front").get_attribute("data-drawn")
    with Store.open(url) as store:
        lease = store.acquire("halfway", "test", 600.0, START + 700)
        write_trial(store, lease, completed(asked(30, candidate(0.6), "bayesian"), answers(0.6)))
    expect(page.locator("#front")).not_to_have_attribute("data-drawn", drawn or "", timeout=15_000)
    assert any(30 in numbers for numbers in traces(page).values())
    expect(page.locator("#limit-prefill_latency ~ .limit-field")).to_have_value("3.9")
    expect(page.get_by_text("29 of 40 trials")).to_be_visible()


def test_a_study_that_is_deleted_while_it_is_shown_is_said_to_be_gone(
    live: tuple[str, str], page: Page
) -> None:
    url, address = live
    complaints: list[Any] = []
    page.on("response", lambda answer: complaints.append(answer.status) if answer.status >= 500 else None)
    opened(page, address)
    with Store.open(url) as store:
        store.delete_study("halfway")
    expect(page.locator("#front-notice")).to_contain_text("there is no study 'halfway'")
    expect(page.locator(f"{FIGURE} .scatterlayer .trace").first).to_be_visible()
    assert complaints == []


def small(tmp_path: Path, *trials: Any, name: str = "small") -> str:
    url = f"sqlite:///{tmp_path}/small.db"
    with Store.open(url) as store:
        store.create_study(study_named(name), {}, START)
        lease = store.acquire(name, "test", 600.0, START)
        for trial in trials:
            write_trial(store, lease, trial)
        store.release(lease, START)
    return url


@pytest.mark.parametrize("kind", ["none", "failed", "one"])
def test_a_study_with_hardly_a_trial_says_what_is_missing(page: Page, tmp_path: Path, kind: str) -> None:
    failed = asked(0, candidate(0.5), "x").failed(Cause.ERROR, "no <b>such</b> layer", START)
    trials = {"none": [], "failed": [failed], "one": [completed(asked(0, candidate(0.5), "x"), answers(0.5))]}
    with served(small(tmp_path, *trials[kind])) as address:
        page.goto(path_at(address, "/study/small"))
        said = {
            "none": "Once trials are completed",
            "failed": "Once trials are completed",
            "one": "With fewer than three trials on the front",
        }
        expect(page.locator("#front-recommended")).to_contain_text(said[kind])
        found = {"none": "0 of them", "failed": "1 failed", "one": "1 of them"}
        expect(page.locator("#front-aside")).to_contain_text(found[kind])
        page.goto("about:blank")  # before the server is gone


def test_a_name_of_any_letters_is_shown_as_text(page: Page, tmp_path: Path) -> None:
    name = 'it\'s-<b>🙂</b>&"quoted"' + "x" * 200
    try:
        url = small(tmp_path, completed(asked(0, candidate(0.5), name), answers(0.5)), name="plain")
    except ValueError:
        pytest.fail("an origin may be any text")
    page.set_viewport_size(WALL)  # the table shows columns that have room
    with served(url) as address:
        page.goto(path_at(address, "/study/plain"))
        expect(page.locator(SETTLED)).to_be_visible()
        expect(page.locator(".trial-table")).to_contain_text("it's-<b>🙂</b>")
        assert page.locator(f"{FIGURE} b").count() == 0
        page.goto("about:blank")  # before the server is gone


def test_times_are_shown_in_the_readers_zone(browser: Browser, address: str) -> None:
    shown = {}
    for zone in ("UTC", "Asia/Tokyo"):
        context = browser.new_context(timezone_id=zone, locale="en-GB")
        page = context.new_page()
        page.goto(path_at(address, "/study/halfway/trial/5"))
        times = page.locator("time.moment[data-shown]")
        expect(times.first).to_be_visible()
        shown[zone] = times.first.inner_text()
        context.close()
    # START is 2026-09-21 14:13:20 UTC, and trial 5 was asked five minutes later; Tokyo is nine hours ahead
    assert "14:18:20" in shown["UTC"]
    assert "23:18:20" in shown["Asia/Tokyo"]


def test_a_study_of_twelve_objectives_has_a_limit_for_each(page: Page, tmp_path: Path) -> None:
    names = list(METRICS)[:12]
    study = Study.from_mapping(
        {
            **study_named("twelve").to_mapping(),
            "objectives": [{"metric": name, "allow_modelled": name == "energy"} for name in names],
        }
    )
    url = f"sqlite:///{tmp_path}/hpo.db"
    with Store.open(url) as store:
        store.create_study(study, {}, START)
        lease = store.acquire("twelve", "test", 600.0, START)
        for number in range(6):
            found = tuple(measured(name, 1.0 + (number * (k + 1)) % 5) for k, name in enumerate(names))
            write_trial(store, lease, completed(asked(number, candidate(0.3 + number / 10), "x"), found))
        store.release(lease, START)
    with served(url) as address:
        page.goto(path_at(address, "/study/twelve"))
        expect(page.locator(SETTLED)).to_be_visible()
        expect(page.get_by_role("slider")).to_have_count(12)
        assert page.evaluate(OVERFLOW) <= 0
        page.goto("about:blank")  # before the server is gone


def test_the_page_fits_a_phone_and_a_wall(page: Page, address: str) -> None:
    for size in (PHONE, WALL):
        page.set_viewport_size(size)
        opened(page, address)
        assert page.evaluate(OVERFLOW) <= 0
