"""Every route behind the door, and every page in every state, without a browser."""

import json
from pathlib import Path

import pytest
from dash import Dash
from dash.development.base_component import Component
from plotly.utils import PlotlyJSONEncoder
from werkzeug.test import Client

from dashboards.app import page_at
from dashboards.source import StudySource
from dashboards.trial_page import export_command
from hpo.store.store import Store
from hpo.trial import Cause, Trial
from tests.dashboards.conftest import TOKEN
from tests.dashboards.synthetic import (
    ENVIRONMENT,
    START,
    answers,
    asked,
    candidate,
    completed,
    study_named,
    write_study,
    write_trial,
)

LOCAL = {"Host": "127.0.0.1:8050"}
KEY = {"Authorization": f"Bearer {TOKEN}"}


def text_of(page: Component) -> str:
    return json.dumps(page, cls=PlotlyJSONEncoder, ensure_ascii=False)


def paths(app: Dash) -> list[str]:
    """Return one address for every route that Flask knows, and a few that it does not."""
    filled = {
        "package_name": "dash",
        "fingerprinted_path": "x.js",
        "path": "study/halfway",
        "filename": "x.css",
    }
    found = []
    for rule in app.server.url_map.iter_rules():
        _, address = rule.build({name: filled.get(name, "x") for name in rule.arguments}) or ("", "")
        found.append(address)
    return [*found, "/assets/dashboard.css", "/_mcp", "/nowhere", "/.env"]


def test_every_route_wants_the_token(app: Dash) -> None:
    client = Client(app.server)
    addresses = paths(app)
    assert len(addresses) > 8
    for address in addresses:
        for method in ("GET", "HEAD", "POST"):
            status = client.open(address, method=method, headers=LOCAL).status_code
            assert status in (401, 405), (method, address)


def test_every_route_wants_its_own_host(app: Dash) -> None:
    client = Client(app.server)
    for address in paths(app):
        for method in ("GET", "HEAD", "POST"):
            foreign = client.open(address, method=method, headers=KEY | {"Host": "evil.example"})
            assert foreign.status_code == 403, (method, address)


def test_with_the_token_the_shell_and_its_files_open(app: Dash) -> None:
    client = Client(app.server)
    for address in ("/", "/study/halfway", "/assets/dashboard.css", "/_dash-layout", "/_dash-dependencies"):
        assert client.get(address, headers=LOCAL | KEY, buffered=True).status_code == 200, address


def test_the_shell_loads_nothing_from_elsewhere(app: Dash) -> None:
    shell = Client(app.server).get("/", headers=LOCAL | KEY).text
    assert 'src="http' not in shell
    assert 'href="http' not in shell
    assert "cdn" not in shell


def test_there_is_no_tool_server_and_no_debugger(app: Dash) -> None:
    routes = {rule.rule for rule in app.server.url_map.iter_rules()}
    assert not any("mcp" in rule or "ws" in rule.split("-") for rule in routes)
    assert not app.server.debug


def test_all_pages_of_a_study_can_be_made(source: StudySource) -> None:
    assert "halfway" in text_of(page_at(source, "/", None))
    study = text_of(page_at(source, "/study/halfway", "?x=energy&y=perplexity"))
    for part in ("28 of 40 trials", "(modelled)", "out of memory", "breaks a limit", "Energy is modelled"):
        assert part in study
    for number in range(30):
        assert f"Trial {number}" in text_of(page_at(source, f"/study/halfway/trial/{number}", None))


def test_every_graph_has_the_safe_configuration(source: StudySource) -> None:
    for path in ("/study/halfway", "/study/halfway/trial/5"):
        found = text_of(page_at(source, path, None))
        assert found.count('"showSendToCloud": false') == found.count('"type": "Graph"') > 0


def test_a_trial_page_shows_what_is_needed(source: StudySource) -> None:
    good = text_of(page_at(source, "/study/halfway/trial/5", None))
    for part in (
        "hpo export halfway 5 --out halfway-5",
        "factorise.keep_ratio",
        "cpu:test-machine",
        "nll before healing",
        "down_proj",
        "modelled",
        "worker-1",
    ):
        assert part in good
    bad = text_of(page_at(source, "/study/halfway/trial/26", None))
    assert "the loss became NaN at step 7" in bad
    assert "hpo export" not in bad


@pytest.mark.parametrize(
    ("path", "said", "hint"),
    [
        ("/study/halfwya", "there is no study 'halfwya'", "did you mean 'halfway'?"),
        ("/study/halfway/trial/99", "has no trial 99", "numbered 0 to 29"),
        ("/elsewhere", "There is no page", ""),
    ],
)
def test_a_wrong_address_says_what_is_there(source: StudySource, path: str, said: str, hint: str) -> None:
    page = text_of(page_at(source, path, None))
    assert said in page
    assert hint in page


def test_a_missing_store_is_said_and_found_once_it_is_there(tmp_path: Path) -> None:
    late = StudySource(f"sqlite:///{tmp_path / 'late.db'}")
    assert "there is no study store at" in text_of(page_at(late, "/", None))
    assert "hpo launch" in text_of(page_at(late, "/", None))
    write_study(tmp_path / "late.db")
    assert "halfway" in text_of(page_at(late, "/", None))
    late.close()


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    Store.open(url).close()
    empty = StudySource(url)
    assert "hpo launch quickstart" in text_of(page_at(empty, "/", None))
    empty.close()


def small_study(path: Path, *trials: Trial, name: str = "small", question: str = "") -> StudySource:
    url = f"sqlite:///{path / 'small.db'}"
    with Store.open(url) as store:
        store.create_study(study_named(name, question), ENVIRONMENT, START)
        lease = store.acquire(name, "test", 600.0, START)
        for trial in trials:
            write_trial(store, lease, trial)
    return StudySource(url)


def test_a_study_without_trials_has_a_page(tmp_path: Path) -> None:
    source = small_study(tmp_path)
    page = text_of(page_at(source, "/study/small", None))
    source.close()
    assert "No trial has finished yet." in page
    assert "0 of 40 trials" in page


def test_a_study_with_failed_trials_only_has_a_page_that_says_why(tmp_path: Path) -> None:
    failed = asked(0, candidate(0.5), "anchor:svd").failed(Cause.UNSUPPORTED, "tied weights", START)
    source = small_study(tmp_path, failed)
    page = text_of(page_at(source, "/study/small", None))
    source.close()
    assert "No completed trial has both metrics yet (1 failed)." in page
    assert "tied weights" in page


def test_a_trial_that_lacks_objectives_does_not_break_the_page(tmp_path: Path) -> None:
    lacking = completed(asked(0, candidate(0.5), "sobol"), answers(0.5)[:1])
    source = small_study(tmp_path, lacking)
    page = text_of(page_at(source, "/study/small", None))
    source.close()
    assert "1 of 40 trials" in page
    assert "No completed trial has both metrics yet (1 without these two metrics)" in page


def test_markup_in_names_and_messages_is_text(tmp_path: Path) -> None:
    nasty = "<script>alert('🙂')</script>"
    trial = asked(0, candidate(0.5), nasty).failed(Cause.ERROR, nasty, START)
    source = small_study(tmp_path, trial, question=nasty)
    pages = [page_at(source, path, None) for path in ("/", "/study/small", "/study/small/trial/0")]
    source.close()
    for page in pages:
        assert nasty in text_of(page)
        assert "dangerously" not in text_of(page)


def test_the_command_to_export_survives_a_shell() -> None:
    assert export_command("it's", 3) == "hpo export 'it'\"'\"'s' 3 --out 'it'\"'\"'s-3'"


def test_a_study_that_was_deleted_and_made_again_shows_no_old_trials(tmp_path: Path) -> None:
    source = small_study(tmp_path, asked(0, candidate(0.5), "sobol"))
    assert len(source.snapshot("small").trials) == 1
    with Store.open(f"sqlite:///{tmp_path / 'small.db'}") as store:
        store.release(store.acquire("small", "test", 1.0, START), START)
        store.delete_study("small")
        store.create_study(study_named("small"), ENVIRONMENT, START + 1)
    assert source.snapshot("small").trials == ()
    source.close()
