"""The list of studies: finding, sorting, choosing, and what its cards say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from dash import Dash

from dashboards.app import create_app, page_at
from dashboards.security import Access
from dashboards.source import StudySource
from dashboards.studies_page import chosen_now, comparison_link
from dashboards.study_cards import best_texts, course_until_now, is_deserted, study_card, study_cards
from dashboards.study_choice import ORDERS, Choice, share_done
from hpo.errors import UsageError
from hpo.store.store import Store
from hpo.store.values import StudyState, StudySummary
from tests.dashboards.conftest import TOKEN
from tests.dashboards.synthetic import ENVIRONMENT, START, study_named, write_study
from tests.dashboards.test_app import text_of
from tests.dashboards.test_callbacks import post

ONE = StudySummary(
    name="quick",
    question="How small can it get?",
    state=StudyState.RUNNING,
    message="",
    counts={"completed": 6, "stopped": 1, "failed": 3, "running": 2, "waiting": 1},
    causes={"out_of_memory": 2, "not_a_number": 1},
    budget_trials=40,
    budget_hours=None,
    hours=0.5,
    objectives=("perplexity", "weight_memory", "energy"),
    best={"perplexity": 4.7, "weight_memory": 2_097_152.0},
    hypervolume=0.625,
    course=((3, 0.5), (9, 0.625)),
    front_size=4,
    workers=2,
    lease_until=1_000.0,
    created_at=1.0,
    updated_at=START,
)


def card_text(**changes: Any) -> str:
    return text_of(study_card(replace(ONE, **changes), now=900.0))


def test_a_card_shows_everything_at_a_glance() -> None:
    card = card_text()
    for part in (
        "quick",
        "running",
        "How small can it get?",
        "10 of 40 trials",
        "62.5 %",
        "data:image/svg+xml",
        "2 trials on 2 workers",
        "2 out of memory, 1 not a number",
        "4 trials",
    ):
        assert part in card


def test_the_course_goes_on_to_the_trials_that_are_over() -> None:
    assert course_until_now(ONE) == ((3, 0.5), (9, 0.625), (10, 0.625))
    assert course_until_now(replace(ONE, counts={"completed": 9})) == ONE.course
    assert course_until_now(replace(ONE, course=())) == ()


def test_best_values_have_units_and_a_dash_where_nothing_is_known() -> None:
    assert best_texts(ONE) == {
        "best perplexity": "4.7 ppl",
        "best weight memory": "2 MiB",
        "best energy": "–",
    }


def test_a_study_without_trials_has_a_card() -> None:
    empty = replace(ONE, counts={}, causes={}, best={}, hypervolume=None, course=(), front_size=0, workers=0)
    card = text_of(study_card(empty, 900.0))
    for part in ("0 of 40 trials", "not known yet", "nothing", "none"):
        assert part in card
    assert "data:image" not in card


def test_a_budget_of_hours_is_shown_beside_that_of_trials() -> None:
    assert "0.5 of 2 h" in card_text(budget_hours=2.0)
    assert "0.5 of 2 h, 10 trials" in card_text(budget_trials=None, budget_hours=2.0)
    assert "10 trials" in card_text(budget_trials=None)


def test_a_failed_study_says_why_and_a_finished_one_does_not() -> None:
    assert "the disk is full" in card_text(state=StudyState.FAILED, message="the disk is full")
    assert "the budget" not in card_text(state=StudyState.FINISHED, message="the budget is used")


@pytest.mark.parametrize(
    ("state", "lease_until", "deserted"),
    [
        (StudyState.RUNNING, 1_000.0, False),
        (StudyState.RUNNING, 800.0, True),
        (StudyState.RUNNING, None, True),
        (StudyState.FINISHED, None, False),
    ],
)
def test_a_running_study_without_a_good_lease_says_how_to_go_on(
    state: StudyState, lease_until: float | None, deserted: bool
) -> None:
    summary = replace(ONE, state=state, lease_until=lease_until)
    assert is_deserted(summary, now=900.0) is deserted
    assert ("hpo resume quick" in text_of(study_card(summary, 900.0))) is deserted


def test_markup_in_a_question_is_text() -> None:
    nasty = "<script>alert('🙂')</script>" * 12
    card = card_text(question=nasty)
    assert json.dumps(nasty, ensure_ascii=False)[1:-1] in card
    assert "dangerously" not in card


# Finding and sorting

OTHERS = (
    replace(ONE, name="beta", question="?", state=StudyState.FAILED, hypervolume=0.7, updated_at=START + 5),
    replace(
        ONE, name="Alpha", question="?", state=StudyState.FINISHED, hypervolume=None, updated_at=START + 9
    ),
    replace(ONE, name="gamma", question="?", counts={"completed": 40}, hypervolume=0.1, updated_at=START - 9),
)
ALL = (ONE, *OTHERS)


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("last change", ["Alpha", "beta", "quick", "gamma"]),
        ("name", ["Alpha", "beta", "gamma", "quick"]),
        ("state", ["quick", "gamma", "beta", "Alpha"]),
        ("progress", ["gamma", "Alpha", "beta", "quick"]),
        ("hypervolume", ["beta", "quick", "gamma", "Alpha"]),
    ],
)
def test_studies_are_sorted_by(order: str, names: list[str]) -> None:
    assert [s.name for s in Choice(order=order).of(ALL)] == names


def test_every_order_takes_what_is_not_known() -> None:
    unknown = replace(ONE, budget_trials=None, hypervolume=None)
    for order in ORDERS:
        assert len(Choice(order=order).of([unknown, ONE])) == 2


def test_studies_are_found_by_part_of_name_or_question_in_capitals_or_not() -> None:
    assert [s.name for s in Choice(text="ALPH").of(ALL)] == ["Alpha"]
    assert [s.name for s in Choice(text=" how small ").of(ALL)] == ["quick"]
    assert [s.name for s in Choice(text="a", state="failed").of(ALL)] == ["beta"]
    assert Choice(text="<b>nobody</b>").of(ALL) == []


def test_an_order_that_there_is_not_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be sorted by 'size'"):
        Choice(order="size")


def test_the_share_done_is_that_of_the_budget_nearest_to_its_end() -> None:
    assert share_done(ONE) == 0.25
    assert share_done(replace(ONE, budget_hours=1.0)) == 0.5
    assert share_done(replace(ONE, budget_trials=None)) is None


# Choosing


def test_what_is_ticked_stays_chosen_while_the_filter_hides_it() -> None:
    assert chosen_now([], ["a", "b"], [["a"], []]) == ["a"]
    assert chosen_now(["a"], ["b", "c"], [["b"], None]) == ["a", "b"]
    assert chosen_now(["a", "b"], ["a", "c"], [[], ["c"]]) == ["b", "c"]


def test_two_or_more_chosen_studies_can_be_compared() -> None:
    assert "Tick two or more" in str(comparison_link([]))
    assert "Tick one more" in str(comparison_link(["a"]))
    (link,) = comparison_link(["a", "b & c"])
    address = link.to_plotly_json()["props"]["href"]
    assert parse_qs(address.partition("?")[2]) == {"study": ["a", "b & c"]}


def test_a_chosen_study_is_ticked_when_its_card_is_made_again() -> None:
    (cards,) = study_cards([ONE, OTHERS[0]], ["beta"])
    boxes = [item.children[0] for item in cards.children]
    assert [box.value for box in boxes] == [[], ["beta"]]


# The page


@pytest.fixture
def two(tmp_path: Path) -> str:
    url = write_study(tmp_path / "hpo.db")
    with Store.open(url) as store:
        store.create_study(study_named("second", "Another?"), ENVIRONMENT, START - 5)
    return url


@pytest.fixture
def app(two: str) -> Dash:
    return create_app(two, Access(TOKEN, "entrance"))


def tick(app: Dash, trigger: str = "studies-tick.n_intervals", **values: Any) -> Any:
    return post(app, "studies-seen", trigger, **values)


def test_a_filter_shows_what_it_finds_and_says_how_many(app: Dash) -> None:
    answer = tick(app, "studies-filter.value", studies_filter__value="another", studies_seen__data=[])
    assert [name for name, _ in answer["studies-seen"]["data"]] == ["second"]
    assert answer["studies-said"]["children"] == "1 of 2 studies"


def test_a_filter_that_finds_nothing_says_so(app: Dash) -> None:
    answer = tick(app, "studies-filter.value", studies_filter__value="xyz", studies_seen__data=[])
    assert "No study matches." in json.dumps(answer["studies"])


def test_a_tick_sends_the_cards_that_have_changed_alone_and_keeps_their_order(app: Dash, two: str) -> None:
    seen = tick(app, studies_seen__data="")["studies-seen"]["data"]
    with Store.open(two) as store:
        lease = store.acquire("second", "test", 600.0, START + 900)
        store.set_state(lease, StudyState.RUNNING, "", START + 900)
    answer = tick(app, studies_seen__data=seen)
    order = [name for name, _ in seen]
    assert [name for name, _ in answer["studies-seen"]["data"]] == order
    operations = answer["studies"]["children"]["operations"]
    (changed,) = operations
    place = order.index("second")
    assert changed["location"] == [0, "props", "children", place, "props", "children", 1]


def test_more_studies_than_fit_are_shown_when_asked_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'many.db'}"
    with Store.open(url) as store:
        for number in range(30):
            store.create_study(study_named(f"study-{number}"), ENVIRONMENT, START + number)
    app = create_app(url, Access(TOKEN, "entrance"))
    first = tick(app, studies_seen__data="")
    assert (len(first["studies-seen"]["data"]), first["studies-more"]["hidden"]) == (24, False)
    more = tick(app, "studies-more.n_clicks", studies_more__n_clicks=1, studies_seen__data="")
    assert (len(more["studies-seen"]["data"]), more["studies-more"]["hidden"]) == (30, True)


def test_a_store_that_is_gone_is_said_on_the_page(tmp_path: Path) -> None:
    gone = StudySource(f"sqlite:///{tmp_path / 'gone.db'}")
    assert "there is no study store at" in text_of(page_at(gone, "/", None))
