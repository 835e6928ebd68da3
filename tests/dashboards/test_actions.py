"""What may be done from the dashboard: only where it is allowed, confirmed, and kept as events."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from werkzeug.test import Client

from dashboards.actions import add, candidate_of, request, retry
from dashboards.app import create_app, page_at
from dashboards.security import Access
from dashboards.source import StudySource
from hpo.errors import HpoError, NotFound, UsageError
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, Request
from tests.dashboards.conftest import TOKEN
from tests.dashboards.synthetic import study_named, write_study
from tests.dashboards.test_callbacks import HEADERS, post

SPACE = study_named("any").space


@pytest.fixture
def url(tmp_path: Path) -> str:
    return write_study(tmp_path / "hpo.db")


def run_by_somebody(url: str) -> None:
    with Store.open(url) as store:
        store.acquire("halfway", "somebody", 600.0, time.time())


def registered(app: Dash) -> str:
    return Client(app.server).get("/_dash-dependencies", headers=HEADERS).text


def test_unless_allowed_there_is_no_action_to_call_and_no_button(url: str) -> None:
    closed, opened = (
        create_app(url, Access(TOKEN, "c")),
        create_app(url, Access(TOKEN, "c"), allow_actions=True),
    )
    assert "action-" not in registered(closed)
    assert "action-cancel" in registered(opened)
    source = StudySource(url)
    pages = [
        str(page_at(source, "/study/halfway", None, allowed).to_plotly_json()) for allowed in (False, True)
    ]
    source.close()
    assert "action-cancel" not in pages[0]
    assert "action-cancel" in pages[1]


def test_without_the_option_the_store_is_never_opened_for_writing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    real = Store.open

    def watched(at: str | None = None, *, read_only: bool = False) -> Store:
        opened.append(read_only)
        return real(at, read_only=read_only)

    monkeypatch.setattr(Store, "open", watched)
    app = create_app(url, Access(TOKEN, "c"))
    client = Client(app.server)
    for path in ("/", "/study/halfway", "/data/halfway/trials", "/_dash-layout"):
        client.get(path, headers=HEADERS)
    post(app, "page.children", "url.pathname", url__pathname="/study/halfway", url__search="")
    assert opened
    assert all(opened)


@pytest.mark.parametrize(("wanted", "said"), [(Request.DRAIN, "Asked to stop."), (Request.CANCEL, "cancel")])
def test_a_request_reaches_the_store_and_stays_there_as_an_event(
    url: str, wanted: Request, said: str
) -> None:
    run_by_somebody(url)
    assert said in request(url, "halfway", wanted)
    with Store.open(url, read_only=True) as store:
        assert store.requested("halfway") is wanted
        last = [e for e in store.events("halfway") if e.kind is EventKind.REQUESTED][-1]
    assert last.payload["request"] == str(wanted)


def test_what_was_asked_can_be_taken_back(url: str) -> None:
    run_by_somebody(url)
    request(url, "halfway", Request.DRAIN)
    request(url, "halfway", Request.NONE)
    with Store.open(url, read_only=True) as store:
        assert store.requested("halfway") is Request.NONE


def test_where_nobody_runs_the_study_nothing_is_asked(url: str) -> None:
    with pytest.raises(UsageError, match="no coordinator runs study 'halfway'"):
        request(url, "halfway", Request.CANCEL)
    with Store.open(url, read_only=True) as store:
        assert store.requested("halfway") is Request.NONE


def test_a_failed_trial_is_wished_for_again_and_no_other(url: str) -> None:
    assert "hpo resume halfway" in retry(url, "halfway", 24)
    run_by_somebody(url)
    assert "the next one to start" in retry(url, "halfway", 25)
    with pytest.raises(UsageError, match="trial 5 is completed"):
        retry(url, "halfway", 5)
    with pytest.raises(NotFound):
        retry(url, "halfway", 99)
    with Store.open(url, read_only=True) as store:
        assert [wish.origin for wish in store.wishes("halfway")[0]] == ["retry:24", "retry:25"]


def test_a_trial_of_ones_own_is_wished_for(url: str) -> None:
    assert "Asked for" in add(url, "halfway", "factorise: svd\nfactorise.keep_ratio: 0.4")
    with Store.open(url, read_only=True) as store:
        (wish,) = store.wishes("halfway")[0]
    assert wish.candidate == Candidate.of({"factorise": "svd", "factorise.keep_ratio": 0.4})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no list of parameters"),
        ("svd", "no list of parameters"),
        ("factorise: [svd", "no list of parameters"),
        ("factorise: {a: 1}", "no list of parameters"),
        ("!!python/object/apply:os.system ['true']", "no list of parameters"),
        ("factorise: svd", "no value for"),
        ("factorise: svd\nfactorise.keep_ratio: 7", "outside the space"),
        ("factorize: svd", "unknown parameter"),
    ],
)
def test_what_is_no_candidate_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(HpoError, match=says):
        candidate_of(SPACE, text)


def test_a_failed_trials_page_offers_to_try_it_again_where_that_is_allowed(url: str) -> None:
    source = StudySource(url)

    def page(number: int, allowed: bool) -> str:
        return str(page_at(source, f"/study/halfway/trial/{number}", None, allowed).to_plotly_json())

    assert "action-retry" in page(24, True)
    assert "action-retry" not in page(24, False)
    assert "action-retry" not in page(5, True)
    source.close()


def test_a_button_answers_with_what_will_happen(url: str) -> None:
    app = create_app(url, Access(TOKEN, "c"), allow_actions=True)

    def press(what: str, **values: Any) -> str:
        key = f"action_{what}__submit_n_clicks"
        given = {"front_study__data": "halfway", key: 1, **values}
        return json.dumps(post(app, "action-said", f"action-{what}.submit_n_clicks", **given))

    assert "no coordinator runs study" in press("stop")
    run_by_somebody(url)
    assert "Asked to stop." in press("stop")
    assert "unknown parameter" in press("add", action_values__value="no_such: 1")
