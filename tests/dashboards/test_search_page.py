"""The search page: every state of a study has words, and it is kept up to date with as little as possible."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dash import Dash

from dashboards import search_page
from dashboards.app import create_app
from dashboards.search_progress import KeptProgress, left_of, progress_of
from dashboards.search_sections import importance_parts, model_mark, model_parts
from dashboards.security import Access
from dashboards.source import Snapshot, StudySource
from hpo.metric import METRICS
from hpo.skill import Foretold, Skill
from hpo.store.spending import Spent, Work
from hpo.store.store import Store
from hpo.store.values import Request, StudyRecord, StudyState
from hpo.study import Study
from hpo.trial import Cause, Trial
from tests.dashboards import synthetic
from tests.dashboards.conftest import TOKEN
from tests.dashboards.hand import answered, asked, measurement, pair
from tests.dashboards.synthetic import START, answers, candidate, completed, write_study, write_trial
from tests.dashboards.test_callbacks import post

NAME = "halfway"


class Fixed(StudySource):
    """A source of one study that stays as it is."""

    def __init__(self, now: Snapshot) -> None:
        super().__init__(None)
        self._now = now

    def snapshot(self, name: str) -> Snapshot:
        return self._now


def study_of(**given: Any) -> Study:
    return Study.from_mapping(synthetic.study_named(NAME).to_mapping() | given)


def snapshot(*trials: Trial, skills: tuple[Skill, ...] = (), gpus: float = 0.0, **given: Any) -> Snapshot:
    record = StudyRecord(study_of(**given), StudyState.RUNNING, "", Request.NONE, 1.0, 1.0, 0.5, {})
    spent = Spent(len(trials), 0.5, Work.of_trials(trials), gpus)
    return Snapshot(record, trials, 1, spent, skills)


def page(now: Snapshot) -> str:
    """Return the page as it is sent, with what it is sent right after."""
    sent = search_page.layout(Fixed(now), NAME, None)
    return json.dumps([sent.to_plotly_json(), *importance_parts(now)], default=lambda o: o.to_plotly_json())


DENSE = pair(0, 10, 100, "anchor:dense")
FAILED = asked(1).started("w", 0.0).failed(Cause.OUT_OF_MEMORY, "<b>", 2.0)


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ((), "known once the dense model has been measured"),
        ((), "No trial has finished yet."),
        ((asked(0),), "What more hours would buy can be said once"),
        ((DENSE,), "known once the dense model has been measured"),
        ((FAILED,), "None of the 1 finished trial was stopped early."),
        ((FAILED,), "once 10 trials of the search space are completed"),
        ((answered(0, measurement("energy", 3.0)),), "has both factorise and perplexity"),
    ],
)
def test_where_there_is_nothing_to_show_it_says_why(trials: tuple[Trial, ...], said: str) -> None:
    assert said in page(snapshot(*trials))


def test_twelve_objectives_have_a_page() -> None:
    names = list(METRICS)[:12]
    found = [measurement(name, 5.0) for name in names]
    trials = [answered(0, *found, origin="anchor:dense"), *(answered(n, *found) for n in range(1, 12))]
    now = snapshot(*trials, objectives=[{"metric": name, "allow_modelled": True} for name in names])
    sent = page(now)
    assert all(name.replace("_", " ") in sent for name in names)


def test_a_parameter_with_tags_and_quotes_in_its_name_is_shown_as_text() -> None:
    name = "<script>'\"\N{GRINNING FACE}" + "x" * 300
    space = {name: {"type": "float", "low": 0.1, "high": 1.0}}
    trials = [Trial(**{**vars(pair(n, 10 + n, 100 - n)), "candidate": candidate(0.5)}) for n in range(1, 12)]
    odd = [Trial(**{**vars(t), "candidate": type(t.candidate).of({name: t.number / 20})}) for t in trials]
    now = snapshot(DENSE, *odd[1:], *odd[:1], space=space, objectives=["perplexity", "weight_memory"])
    search_page.layout(Fixed(now), NAME, None)
    (figure,) = [part for part in _figures(importance_parts(now)) if part["data"][0]["type"] == "heatmap"]
    assert figure["data"][0]["y"][0].startswith("&lt;script&gt;")


def _figures(parts: Any) -> list[Any]:
    """Return the figures in what a page is sent."""
    found: list[Any] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "data" in node and "layout" in node:
                found.append(node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(json.loads(json.dumps(parts, default=lambda o: o.to_plotly_json())))
    return found


def test_on_gpus_the_axis_is_in_gpu_hours() -> None:
    trials = (DENSE, *(pair(n, 10, 100) for n in range(1, 4)))
    given: dict[str, Any] = {"objectives": ["perplexity", "weight_memory"], "budget": {"gpu_hours": 16}}
    now = snapshot(*trials, gpus=2.0, **given)
    progress = progress_of(now)
    figure = progress.figure(left_of(now), "hours", "times-1")
    assert figure.layout.xaxis.title.text == "GPU-hours"
    assert figure.data[0].x == (2, 4, 6, 8)
    assert figure.layout.shapes[1].x0 == 16
    assert "after 4 finished trials, 8 GPU-hours and 4 s by the clock" in progress.words
    assert left_of(now).words == "Left of the budget: 8 of 16 GPU-hours."


def test_a_model_that_kept_what_it_foretold_gets_a_figure_for_each_objective() -> None:
    kept = Skill("perplexity", 1, 0.1, 1.0, (Foretold(3, 10.0, 9.0, 7.0, 12.0),))
    old = Skill("energy", 12, 0.2, 11 / 12)
    assert len(_figures(model_parts([kept, kept]))) == 2
    assert len(_figures(model_parts([kept, old]))) == 1
    assert _figures(model_parts([old])) == []
    assert "11 of 12 trials" in json.dumps(model_parts([old]), default=lambda o: o.to_plotly_json())
    assert "has not judged a model" in json.dumps(model_parts([]), default=lambda o: o.to_plotly_json())
    assert len({model_mark(skills) for skills in ([], [kept], [old], [kept, old])}) == 4


def test_progress_is_computed_once_for_the_same_trials() -> None:
    kept, now = KeptProgress(), snapshot(DENSE, pair(1, 20, 50))
    first = kept.of(now)
    assert kept.of(replace(now, newest=2)) is first
    more = replace(now, trials=(*now.trials, pair(2, 25, 40)))
    assert kept.of(more) is not first
    assert kept.of(snapshot(*now.trials, search={"initial": 2})) is not first


def test_progress_is_kept_of_the_studies_that_were_looked_at_last() -> None:
    kept = KeptProgress()
    studies = [snapshot(DENSE, name=f"study-{n}") for n in range(9)]
    first = kept.of(studies[0])
    for now in studies[1:8]:
        kept.of(now)
    assert kept.of(studies[0]) is first
    second = kept.of(studies[1])
    kept.of(studies[8])
    assert kept.of(studies[0]) is first  # the one to go is the third: nobody looked at it since
    assert kept.of(studies[1]) is second


def tick(app: Dash, seen: str, mark: str = "", name: str = NAME) -> Any:
    """Return what the page is sent that has seen this much."""
    known = {"search_name__data": name, "search_seen__data": seen, "search_model_mark__data": mark}
    return post(app, "search-notice", "search-tick.n_intervals", **known)


def test_a_tick_without_news_brings_what_is_left_only(app: Dash) -> None:
    seen = tick(app, "")["search-seen"]["data"]
    again = tick(app, seen)
    assert set(again) == {"search-notice", "search-left", "study-state"}
    assert again["search-left"]["children"] == "Left of the budget: 12 of 40 trials."


def test_a_tick_brings_the_model_only_if_it_was_judged_anew(app: Dash) -> None:
    first = tick(app, "")
    assert "perplexity" in json.dumps(first["search-model"])
    assert "search-model" not in tick(app, "", first["search-model-mark"]["data"])


def test_a_tick_says_that_the_study_is_gone(app: Dash) -> None:
    answer = tick(app, "", name="gone")
    assert "there is no study 'gone'" in json.dumps(answer["search-notice"])
    assert set(answer) == {"search-notice"}


def test_a_new_trial_lengthens_the_curve_and_leaves_importance_until_a_tenth_is_new(tmp_path: Path) -> None:
    url = write_study(tmp_path / "hpo.db")
    app = create_app(url, Access(TOKEN, "entrance"))

    def importance(before: int) -> Any:
        known = {"search_name__data": NAME, "search_importance_at__data": before}
        return post(app, "search-importance.children", "search-seen.data", **known)

    assert importance(-1)["search-importance-at"]["data"] == 24
    with Store.open(url) as store:
        lease = store.acquire(NAME, "test", 600.0, START + 700)
        for number in (30, 31):
            done = completed(synthetic.asked(number, candidate(0.6), "bayesian"), answers(0.6))
            write_trial(store, lease, done)
            assert len(curve_of(app)["data"][0]["x"]) == 28 + number - 29
    assert importance(24) == {}
    assert importance(23)["search-importance-at"]["data"] == 26


def curve_of(app: Dash, against: str = "trials", more: str = "times-1") -> Any:
    known = {"search_name__data": NAME, "search_against__value": against, "search_more__value": more}
    answer = post(app, "search-hypervolume.figure", "search-more.value", **known)
    return answer["search-hypervolume"]["figure"]


def test_more_work_makes_a_longer_band(app: Dash) -> None:
    end = {more: max(curve_of(app, more=more)["data"][1]["x"]) for more in ("times-1", "times-5", "rest")}
    assert end["times-1"] == pytest.approx(28 + 17)  # 17 trials were judged: 25 less 8 of the start
    assert end["times-5"] == pytest.approx(28 + 5 * 17)
    assert end["rest"] == pytest.approx(40)


def test_an_amount_that_is_not_offered_any_more_is_the_first_one(app: Dash) -> None:
    assert curve_of(app, more="hours-77") == curve_of(app, more="times-1")


def address(app: Dash, triggered: str, path: str = "/study/halfway/search", search: str = "") -> Any:
    known = {
        "search_against__value": "hours",
        "search_more__value": "times-1",
        "search_parameter__value": "factorise",
        "search_objective__value": "energy",
        "search_address__search": search,
        "search_address__pathname": path,
        "search_name__data": NAME,
    }
    return post(app, "search-address.search", triggered, **known)


def test_what_is_chosen_stands_in_the_address(app: Dash) -> None:
    said = "?over=hours&more=times-1&parameter=factorise&objective=energy"
    assert address(app, "search-objective.value") == {"search-address": {"search": said}}


def test_the_address_sets_what_is_chosen_when_one_goes_back(app: Dash) -> None:
    answer = address(app, "search-address.search", search="?over=seconds&more=times-1&parameter=factorise")
    assert answer == {"search-against": {"value": "seconds"}, "search-objective": {"value": "perplexity"}}


def test_what_is_chosen_keeps_out_of_the_address_of_another_page(app: Dash) -> None:
    assert address(app, "search-address.search", path="/study/halfway") == {}


def test_the_page_opens_with_what_its_address_asks_for(source: StudySource) -> None:
    asked_for = "?over=seconds&more=times-5&parameter=factorise.keep_ratio&objective=energy"
    sent = search_page.layout(source, NAME, asked_for)
    curve, *_, cut = _figures(sent.to_plotly_json())
    assert curve["layout"]["xaxis"]["title"]["text"].startswith("time since the first start")
    assert cut["layout"]["xaxis"]["title"]["text"] == "factorise.keep_ratio"
    assert cut["layout"]["yaxis"]["title"]["text"].startswith("energy")
    sent_text = json.dumps(sent.to_plotly_json(), default=lambda o: o.to_plotly_json())
    assert "7 min of work more" in sent_text


def test_another_parameter_gives_another_slice(app: Dash) -> None:
    def slice_of(parameter: str) -> Any:
        known = {"search_parameter__value": parameter, "search_objective__value": "energy"}
        return post(app, "search-slice.figure", "search-parameter.value", search_name__data=NAME, **known)

    one, other = slice_of("factorise"), slice_of("factorise.keep_ratio")
    assert one["search-slice"]["figure"]["layout"]["xaxis"]["ticktext"] == ["svd", "mpo"]
    assert other["search-slice"]["figure"]["layout"]["xaxis"]["title"]["text"] == "factorise.keep_ratio"
    assert "23 of 24 completed trials" in one["search-slice-words"]["children"]


@pytest.mark.parametrize("figure", ["search-hypervolume", "search-slice"])
def test_a_click_on_a_point_opens_its_trial(app: Dash, figure: str) -> None:
    clicked = {f"{figure.replace('-', '_')}__clickData": {"points": [{"customdata": 7}]}}
    answer = post(app, "search-go.href", f"{figure}.clickData", search_name__data=NAME, **clicked)
    assert answer == {"search-go": {"href": f"/study/{NAME}/trial/7"}}


def test_a_click_on_a_line_opens_nothing(app: Dash) -> None:
    line = {"search_slice__clickData": {"points": [{"x": 1.0}]}}
    assert post(app, "search-go.href", "search-slice.clickData", search_name__data=NAME, **line) == {}
