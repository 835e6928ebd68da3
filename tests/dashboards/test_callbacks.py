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
    """Return what the page of a front is sent that has seen this much."""
    return post(app, "study-head", "front-tick.n_intervals", front_study__data=name, front_seen__data=seen)


def test_a_tick_without_news_changes_nothing(app: Dash) -> None:
    seen = tick(app, "")["front-seen"]["data"]
    assert set(tick(app, seen)) == {"study-notice"}


def test_a_tick_after_a_new_trial_brings_the_head_up_to_date(tmp_path: Path) -> None:
    url = write_study(tmp_path / "hpo.db")
    app = create_app(url, Access(TOKEN, "entrance"))
    before = tick(app, "")
    with Store.open(url) as store:
        lease = store.acquire("halfway", "test", 600.0, START + 700)
        write_trial(store, lease, completed(asked(30, candidate(0.6), "bayesian"), answers(0.6)))
    after = tick(app, before["front-seen"]["data"])
    assert "28 of 40 trials" in json.dumps(before["study-head"])
    assert "29 of 40 trials" in json.dumps(after["study-head"])


def test_a_tick_says_that_the_study_is_gone(app: Dash) -> None:
    answer = tick(app, "", name="gone")
    assert "there is no study 'gone'" in json.dumps(answer["study-notice"])
    assert set(answer) == {"study-notice"}


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
