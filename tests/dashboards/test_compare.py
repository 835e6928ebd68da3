"""The page of a comparison: what it shows, refuses and keeps in its address."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dash import Dash

from dashboards.app import create_app, page_at
from dashboards.compare_page import trial_clicked
from dashboards.comparing import compared, seen_of
from dashboards.comparison_figure import draw_fronts
from dashboards.comparison_view import CompareView
from dashboards.routes import CompareRoute
from dashboards.security import Access
from dashboards.source import StudySource
from hpo.store.store import Store
from tests.dashboards.conftest import TOKEN
from tests.dashboards.seeds import SEEDS, searched, write_one, write_seeds
from tests.dashboards.synthetic import START, study_named
from tests.dashboards.test_app import text_of
from tests.dashboards.test_callbacks import post


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_seeds(tmp_path_factory.mktemp("seeds") / "hpo.db")


@pytest.fixture(scope="module")
def seeds(url: str) -> Iterator[StudySource]:
    source = StudySource(url)
    yield source
    source.close()


@pytest.fixture(scope="module")
def dashboard(url: str) -> Dash:
    return create_app(url, Access(TOKEN, "entrance"))


def page(source: StudySource, *names: str, more: str = "") -> str:
    return text_of(page_at(source, "/compare", CompareRoute.of(names).partition("compare")[2] + more))


def test_three_studies_are_side_by_side_with_figure_and_numbers(seeds: StudySource) -> None:
    found = page(seeds, *SEEDS)
    for part in (*SEEDS, "prefill latency [ms]", "lost without it", "all together", "most generous"):
        assert part in found
    assert "25 to 75 % attain" not in found
    assert "seed-2 0.0267 worker hours, seed-0 0.0133" in found


def test_seeds_of_one_thing_have_bands(seeds: StudySource) -> None:
    found = page(seeds, *SEEDS, more="&seeds=1")
    assert "25 to 75 % attain" in found
    assert "of the 3 runs attain" in found


def test_two_seeds_say_that_bands_need_three(seeds: StudySource) -> None:
    assert "What runs attain is shown for 3 or more." in page(seeds, *SEEDS[:2], more="&seeds=1")


def test_a_cut_begins_at_the_most_that_all_have(seeds: StudySource) -> None:
    here = compared(seeds, CompareView(SEEDS, cut="trials"))
    assert here.comparison is not None
    assert (here.view.at, here.most, here.matched) == (8, 16, 8)
    assert [share.trials for share in here.comparison.shares] == [8, 8, 8]
    assert "Each study as it was after 8 trials." in page(seeds, *SEEDS, more="&cut=trials")


def test_a_cut_beyond_what_one_has_says_so(seeds: StudySource) -> None:
    found = page(seeds, *SEEDS, more="&cut=trials&at=12")
    assert "after 12 trials. Some have less: all have 8 trials." in found


def test_the_box_stays_where_it_is_while_the_cut_moves(seeds: StudySource) -> None:
    boxes = {
        here.comparison.box
        for at in (0.0, 1.0, 8.0, 16.0)
        if (here := compared(seeds, CompareView(SEEDS, cut="trials", at=at))).comparison
    }
    assert len(boxes) == 1


def test_other_objectives_are_refused_with_what_differs(seeds: StudySource) -> None:
    found = page(seeds, "seed-0", "other")
    assert "only seed-0 has energy, weight memory; only other has peak memory" in found
    assert "Nothing to compare yet." in found


@pytest.mark.parametrize("names", [("empty", "failed"), ("empty", "seed-0"), ("failed", "seed-1")])
def test_studies_without_a_completed_trial_can_be_looked_at(
    seeds: StudySource, names: tuple[str, str]
) -> None:
    found = page(seeds, *names)
    assert "Without a point in the box" in found
    assert "all together" in found


def test_one_study_asks_for_another_and_none_for_two(seeds: StudySource) -> None:
    assert "Choose one more study to compare." in page(seeds, "seed-0")
    assert "Choose two or more studies to compare." in text_of(page_at(seeds, "/compare", None))


def test_names_that_are_not_there_are_said_and_the_others_compared(seeds: StudySource) -> None:
    nasty = "<script>alert('🙂')</script>\"" * 11
    found = page(seeds, "seed-0", nasty, "seed-1")
    assert json.dumps(nasty, ensure_ascii=False)[1:60] in found
    assert "all together" in found
    assert "did you mean 'seed-1'" in page(seeds, "seed-0", "seed-11")
    assert "dangerously" not in found


def test_more_than_eight_are_cut_to_eight_and_it_is_said_so(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'many.db'}"
    names = [f"run-{n}" for n in range(10)]
    with Store.open(address) as store:
        for number, name in enumerate(names):
            write_one(store, study_named(name), searched(number, 3))
    source = StudySource(address)
    here = compared(source, CompareView(tuple(names)))
    source.close()
    assert here.comparison is not None
    assert [share.name for share in here.comparison.shares] == names[:8]
    assert "2 more could not be told apart" in here.troubles[0].message


def test_an_empty_store_and_a_missing_one_have_a_page(tmp_path: Path) -> None:
    missing = StudySource(f"sqlite:///{tmp_path / 'none.db'}")
    assert page(missing, "a", "b").count("there is no study store at") == 1
    Store.open(f"sqlite:///{tmp_path / 'none.db'}").close()
    assert "the store is empty; launch one" in page(missing, "a")
    missing.close()


# What it answers


def choose(app: Dash, trigger: str, **values: Any) -> Any:
    known = {
        "compare_url__pathname": "/compare",
        "compare_names__value": list(SEEDS),
        "compare_cut__value": "all",
        "compare_x__value": "prefill_latency",
        "compare_y__value": "perplexity",
        "compare_seen__data": "",
    }
    return post(app, "compare-seen", trigger, **known | values)


def test_what_is_chosen_goes_into_the_address(dashboard: Dash) -> None:
    answer = choose(dashboard, "compare-seeds.value", compare_seeds__value=["1"], compare_x__value="energy")
    query = "study=seed-0&study=seed-1&study=seed-2&x=energy&y=perplexity&seeds=1"
    assert answer["compare-url"]["search"] == f"?{query}"
    assert answer["compare-graph"]["figure"]["data"][0]["name"] == "25 to 75 % attain"


def test_the_address_sets_what_is_chosen_when_one_goes_back(dashboard: Dash) -> None:
    search = f"?study={quote('seed-0')}&study=seed-1&x=energy&y=weight_memory&cut=trials&at=5"
    answer = choose(dashboard, "compare-url.search", compare_url__search=search)
    assert answer["compare-names"]["value"] == ["seed-0", "seed-1"]
    assert (answer["compare-x"]["value"], answer["compare-y"]["value"]) == ("energy", "weight_memory")
    assert (answer["compare-cut"]["value"], answer["compare-at"]["value"]) == ("trials", 5)


def test_another_kind_of_cut_begins_at_what_all_have(dashboard: Dash) -> None:
    values = {"compare_cut__value": "trials", "compare_at__value": 0.01}
    answer = choose(dashboard, "compare-cut.value", **values)
    assert answer["compare-at"] == {"max": 16, "step": 1, "value": 8}
    assert answer["compare-slider"] == {"hidden": False}


def test_a_slider_that_is_dragged_stays_under_the_hand(dashboard: Dash) -> None:
    values = {"compare_cut__value": "trials", "compare_at__value": 3}
    answer = choose(dashboard, "compare-at.value", **values)
    assert "compare-at" not in answer
    assert answer["compare-said"]["children"] == "Each study as it was after 3 trials."


def test_twice_the_same_axis_asks_for_another(dashboard: Dash) -> None:
    values = {"compare_x__value": "energy", "compare_y__value": "energy"}
    figure = choose(dashboard, "compare-x.value", **values)["compare-graph"]["figure"]
    assert "two different objectives" in figure["layout"]["annotations"][0]["text"]


def test_a_click_on_a_mark_opens_its_trial_and_one_on_a_line_nothing(seeds: StudySource) -> None:
    here = compared(seeds, CompareView(SEEDS))
    assert here.fronts is not None
    marks = [trace for trace in draw_fronts(here.fronts).data if trace.mode == "markers"]
    number = here.fronts.lines[1].numbers[0]
    found = trial_clicked({"points": [{"customdata": marks[1].customdata[0]}]})
    assert found == f"/study/seed-1/trial/{number}"
    assert trial_clicked({"points": [{"x": 1.0}]}) is None
    assert trial_clicked({"points": [{"customdata": "https://elsewhere.example/"}]}) is None
    assert trial_clicked(None) is None


def test_a_tick_without_news_changes_nothing(dashboard: Dash, seeds: StudySource) -> None:
    seen = choose(dashboard, "compare-tick.n_intervals", compare_seen__data="old")["compare-seen"]["data"]
    assert seen.startswith(seen_of(seeds, SEEDS))
    assert choose(dashboard, "compare-tick.n_intervals", compare_seen__data=seen) == {}


def test_a_tick_makes_up_for_a_choice_whose_answer_was_lost(dashboard: Dash) -> None:
    seen = choose(dashboard, "compare-tick.n_intervals", compare_seen__data="old")["compare-seen"]["data"]
    chosen = {"compare_seen__data": seen, "compare_seeds__value": ["1"]}
    answer = choose(dashboard, "compare-tick.n_intervals", **chosen)
    assert answer["compare-graph"]["figure"]["data"][0]["name"] == "25 to 75 % attain"


def test_on_the_way_to_another_page_nothing_changes(dashboard: Dash) -> None:
    assert choose(dashboard, "compare-url.search", compare_url__pathname="/study/seed-0") == {}


def test_a_study_that_is_deleted_while_it_is_shown_is_said(tmp_path: Path) -> None:
    address = write_seeds(tmp_path / "hpo.db")
    app = create_app(address, Access(TOKEN, "entrance"))
    seen = choose(app, "compare-tick.n_intervals")["compare-seen"]["data"]
    with Store.open(address) as store:
        store.delete_study("seed-1")
    answer = choose(app, "compare-tick.n_intervals", compare_seen__data=seen)
    assert "there is no study 'seed-1'" in json.dumps(answer["compare-notice"])
    assert "seed-1" not in json.dumps(answer["compare-numbers"])
    assert "seed-2" in json.dumps(answer["compare-numbers"])


def test_a_study_that_was_made_anew_is_compared_anew(tmp_path: Path) -> None:
    address = write_seeds(tmp_path / "hpo.db")
    source = StudySource(address)
    before = compared(source, CompareView(SEEDS))
    with Store.open(address) as store:
        store.delete_study("seed-2")
        fresh = study_named("seed-2")
        store.create_study(fresh, {}, START + 5)
    after = compared(source, CompareView(SEEDS))
    source.close()
    assert before.comparison is not None
    assert after.comparison is not None
    assert (before.comparison.shares[2].trials, after.comparison.shares[2].trials) == (16, 0)
    assert before.seen != after.seen
