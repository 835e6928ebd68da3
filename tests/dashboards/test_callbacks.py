"""What the pages answer to a click or a tick, posted as Dash's renderer posts it."""

import json
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from werkzeug.test import Client

from dashboards.app import create_app
from dashboards.security import CALLBACKS, Access
from hpo.store.store import Store
from tests.dashboards.conftest import TOKEN
from tests.dashboards.synthetic import START, answers, asked, candidate, completed, write_study, write_trial

HEADERS = {"Host": "127.0.0.1:8050", "Authorization": f"Bearer {TOKEN}"}


def post(app: Dash, part_of_output: str, triggered: str, **values: Any) -> Any:
    """Call the callback whose outputs contain `part_of_output`; return what it changes, empty for nothing.

    `values` are the inputs and states by ``id__property``, with ``_`` for ``-``.
    """
    client = Client(app.server)
    known = json.loads(client.get("/_dash-dependencies", headers=HEADERS).text)
    (callback,) = [c for c in known if part_of_output in c["output"]]

    def filled(part: dict[str, Any]) -> dict[str, Any]:
        key = f"{part['id']}__{part['property']}".replace("-", "_")
        return {**part, "value": values.get(key)}

    outputs = [dict(zip(("id", "property"), o.split("."), strict=True)) for o in _split(callback["output"])]
    body = {
        "output": callback["output"],
        "outputs": outputs if callback["output"].startswith("..") else outputs[0],
        "inputs": [filled(part) for part in callback["inputs"]],
        "state": [filled(part) for part in callback["state"]],
        "changedPropIds": [triggered],
    }
    answer = client.post(CALLBACKS, json=body, headers=HEADERS)
    assert answer.status_code in (200, 204), answer.text
    return {} if answer.status_code == 204 else json.loads(answer.text)["response"]


def _split(output: str) -> list[str]:
    return output.strip(".").split("...")


def test_the_router_shows_the_page_at_the_address(app: Dash) -> None:
    page = post(app, "page.children", "url.pathname", url__pathname="/study/halfway", url__search="")
    assert "halfway" in json.dumps(page)


def tick(app: Dash, seen: str, name: str = "halfway") -> Any:
    """Return what a study page is sent that has seen this much."""
    return post(app, "study-head", "study-tick.n_intervals", study_name__data=name, study_seen__data=seen)


def test_a_tick_without_news_leaves_figures_and_table_alone(app: Dash) -> None:
    seen = tick(app, "")["study-seen"]["data"]
    assert set(tick(app, seen)) == {"study-notice", "study-head"}


def test_a_tick_after_a_new_trial_brings_its_row(tmp_path: Path) -> None:
    url = write_study(tmp_path / "hpo.db")
    app = create_app(url, Access(TOKEN, "entrance"))
    seen = tick(app, "")["study-seen"]["data"]
    with Store.open(url) as store:
        lease = store.acquire("halfway", "test", 600.0, START + 700)
        write_trial(store, lease, completed(asked(30, candidate(0.6), "bayesian"), answers(0.6)))
    answer = tick(app, seen)
    assert answer["study-seen"]["data"] != seen
    assert answer["trial-table"]["rowData"][30]["state"] == "completed"


def test_a_tick_says_that_the_study_is_gone(app: Dash) -> None:
    answer = tick(app, "", name="gone")
    assert "there is no study 'gone'" in json.dumps(answer["study-notice"])
    assert set(answer) == {"study-notice"}


def test_other_axes_give_another_figure(app: Dash) -> None:
    values = {"study_name__data": "halfway", "axis_x__value": "energy", "axis_y__value": "weight_memory"}
    figure = post(app, "front-graph.figure", "axis-x.value", **values)["front-graph"]["figure"]
    assert figure["layout"]["xaxis"]["title"]["text"].startswith("energy [mJ per token] (modelled)")
    assert figure["layout"]["yaxis"]["title"]["text"].startswith("weight memory [MiB]")


def test_twice_the_same_axis_asks_for_another(app: Dash) -> None:
    values = {"study_name__data": "halfway", "axis_x__value": "energy", "axis_y__value": "energy"}
    figure = post(app, "front-graph.figure", "axis-x.value", **values)["front-graph"]["figure"]
    assert "two different metrics" in figure["layout"]["annotations"][0]["text"]


def axes(app: Dash, triggered: str, path: str = "/study/halfway", search: str = "") -> Any:
    return post(
        app,
        "study-url.search",
        triggered,
        axis_x__value="energy",
        axis_y__value="perplexity",
        axis_x__options=[{"value": name} for name in ("perplexity", "energy", "weight_memory")],
        study_url__pathname=path,
        study_url__search=search,
        study_name__data="halfway",
    )


def test_chosen_axes_go_into_the_address(app: Dash) -> None:
    assert axes(app, "axis-x.value") == {"study-url": {"search": "?x=energy&y=perplexity"}}


def test_the_address_sets_the_axes_when_one_goes_back(app: Dash) -> None:
    answer = axes(app, "study-url.search", search="?x=weight_memory&y=energy")
    assert answer == {"axis-x": {"value": "weight_memory"}, "axis-y": {"value": "energy"}}


def test_the_axes_keep_out_of_the_address_of_another_page(app: Dash) -> None:
    assert axes(app, "study-url.search", path="/study/halfway/trial/3") == {}


@pytest.mark.parametrize(
    ("triggered", "values"),
    [
        ("trial-table.selectedRows", {"trial_table__selectedRows": [{"number": 7}]}),
        ("front-graph.clickData", {"front_graph__clickData": {"points": [{"customdata": 7}]}}),
        ("hypervolume-graph.clickData", {"hypervolume_graph__clickData": {"points": [{"customdata": 7}]}}),
    ],
)
def test_a_click_opens_the_trial(app: Dash, triggered: str, values: dict[str, Any]) -> None:
    answer = post(app, "url.href", triggered, study_name__data="halfway", **values)
    assert answer == {"url": {"href": "/study/halfway/trial/7"}}


def test_a_click_on_a_line_opens_nothing(app: Dash) -> None:
    line = {"points": [{"x": 1.0, "y": 2.0}]}
    values = {"study_name__data": "halfway", "front_graph__clickData": line}
    assert post(app, "url.href", "front-graph.clickData", **values) == {}


def test_the_list_of_studies_is_sent_again_only_when_it_changed(app: Dash) -> None:
    first = post(app, "studies-seen", "studies-tick.n_intervals", studies_seen__data="")
    seen = first["studies-seen"]["data"]
    assert "halfway" in json.dumps(first["studies"])
    assert post(app, "studies-seen", "studies-tick.n_intervals", studies_seen__data=seen) == {}


def test_a_trial_is_sent_again_only_when_it_changed(app: Dash) -> None:
    def trial_tick(seen: str) -> Any:
        question = {"name": "halfway", "number": 5}
        return post(
            app, "trial-seen", "trial-tick.n_intervals", trial_asked__data=question, trial_seen__data=seen
        )

    seen = trial_tick("")["trial-seen"]["data"]
    assert set(trial_tick(seen)) == {"trial-notice"}


def test_a_fault_of_ours_is_shown_and_logged(
    app: Dash, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("dashboards.studies_page.study_cards", fails)
    post(app, "studies-seen", "studies-tick.n_intervals", studies_seen__data="")
    assert "a page could not be made" in caplog.text
