"""What the browser is sent: exact numbers, only what has changed, and reasons in place of errors."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dash import Dash
from werkzeug.test import Client

from dashboards.app import create_app
from dashboards.feed import STATES, feed_of
from dashboards.security import Access
from dashboards.source import StudySource
from hpo.store.store import Store
from tests.dashboards.conftest import TOKEN
from tests.dashboards.synthetic import START, answers, asked, candidate, completed, write_study, write_trial

HEADERS = {"Host": "127.0.0.1:8050", "Authorization": f"Bearer {TOKEN}"}


def feed(app: Dash, name: str = "halfway", since: int | str = 0) -> Any:
    answer = Client(app.server).get(f"/data/{name}/trials?since={since}", headers=HEADERS)
    return answer.status_code, json.loads(answer.text)


def numbers(text: str, kind: str) -> list[float]:
    found: list[float] = np.frombuffer(base64.b64decode(text), dtype=kind).tolist()
    return found


def test_columns_hold_every_trial_exactly(source: StudySource) -> None:
    now = source.snapshot("halfway")
    sent = feed_of(now, now.trials)
    columns = sent["columns"]
    assert numbers(columns["number"], "<i4") == [trial.number for trial in now.trials]
    assert [STATES[int(code)] for code in numbers(columns["state"], "u1")] == [t.state for t in now.trials]
    for metric, values, spreads in zip(sent["metrics"], columns["values"], columns["spreads"], strict=True):
        expected = [trial.value(metric["name"]) for trial in now.trials]
        found = [None if np.isnan(value) else value for value in numbers(values, "<f8")]
        assert found == expected
        told = [m.spread if (m := t.measurement(metric["name"])) else 0.0 for t in now.trials]
        assert numbers(spreads, "<f4") == pytest.approx(told, rel=1e-6)
    assert columns["anchors"] == {"0": "dense", "1": "svd", "2": "smallest"}
    assert columns["recipes"][5] == str(now.trials[5].candidate)
    assert columns["causes"]["24"] == "out of memory"


def test_a_metric_comes_with_its_unit_its_limit_and_the_dense_models_value(source: StudySource) -> None:
    now = source.snapshot("halfway")
    perplexity, latency, memory, energy = feed_of(now, now.trials)["metrics"]
    dense = now.trials[0].value("perplexity")
    assert dense is not None
    assert perplexity["dense"] == dense
    assert perplexity["limit"] == pytest.approx(3 * dense)
    assert perplexity["reference"] == pytest.approx(3 * dense)
    assert latency["limit"] is None
    assert (memory["unit"], memory["divisor"]) == ("MiB", 2**20)
    assert energy["lower"]


def test_only_what_has_changed_is_sent_again(tmp_path: Path) -> None:
    url = write_study(tmp_path / "hpo.db")
    app = create_app(url, Access(TOKEN, "entrance"))
    _, first = feed(app)
    _, nothing = feed(app, since=first["newest"])
    assert set(nothing) == {"study", "created", "newest"}
    with Store.open(url) as store:
        lease = store.acquire("halfway", "test", 600.0, START + 700)
        write_trial(store, lease, completed(asked(30, candidate(0.6), "bayesian"), answers(0.6)))
    _, news = feed(app, since=first["newest"])
    assert numbers(news["columns"]["number"], "<i4") == [30]
    assert news["newest"] > first["newest"]
    assert news["trials"] == 31


def test_two_browsers_hear_of_the_same_change(tmp_path: Path) -> None:
    url = write_study(tmp_path / "hpo.db")
    app = create_app(url, Access(TOKEN, "entrance"))
    _, first = feed(app)
    with Store.open(url) as store:
        lease = store.acquire("halfway", "test", 600.0, START + 700)
        write_trial(store, lease, completed(asked(30, candidate(0.6), "bayesian"), answers(0.6)))
    for _ in range(2):
        _, news = feed(app, since=first["newest"])
        assert numbers(news["columns"]["number"], "<i4") == [30]


def test_a_study_that_is_gone_is_said_to_be(app: Dash) -> None:
    status, said = feed(app, "halfwy")
    assert status == 200
    assert "no study 'halfwy'" in said["message"]
    assert "halfway" in said["hint"]


def test_a_store_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    app = create_app(f"sqlite:///{tmp_path}/none.db", Access(TOKEN, "entrance"))
    _, said = feed(app)
    assert set(said) == {"message", "hint"}


def test_what_is_no_number_counts_as_nothing_known(app: Dash) -> None:
    status, sent = feed(app, since="x")
    assert status == 200
    assert sent["trials"] == 30


def test_the_feed_wants_the_token_as_any_page_does(app: Dash) -> None:
    answer = Client(app.server).get("/data/halfway/trials", headers={"Host": "127.0.0.1:8050"})
    assert answer.status_code == 401


def test_an_empty_study_is_described_without_trials(tmp_path: Path) -> None:
    from tests.dashboards.synthetic import study_named

    url = f"sqlite:///{tmp_path}/hpo.db"
    with Store.open(url) as store:
        store.create_study(study_named("new"), {}, START)
    source = StudySource(url)
    now, changed = source.changes("new", 0)
    source.close()
    sent = feed_of(now, changed)
    assert [metric["name"] for metric in sent["metrics"]] == [
        "perplexity",
        "prefill_latency",
        "weight_memory",
        "energy",
    ]
    assert sent["metrics"][0]["limit"] is None, "it follows from the dense model, which is not measured yet"
    assert numbers(sent["columns"]["number"], "<i4") == []
