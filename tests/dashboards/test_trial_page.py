"""The page of a trial in every state, without a browser, and what it answers to a tick and a switch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dash import Dash
from dash.development.base_component import Component

from dashboards.app import create_app, page_at
from dashboards.security import Access
from dashboards.source import StudySource
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import StageTime
from tests.dashboards.conftest import TOKEN
from tests.dashboards.storied import (
    CHILD,
    DENSE,
    FAILED,
    MOVED,
    NAME,
    NASTY,
    PARENT,
    RUNNING,
    STOPPED,
    WAITING,
    write_story,
    write_wide,
)
from tests.dashboards.synthetic import START, asked, candidate, study_named
from tests.dashboards.test_app import text_of
from tests.dashboards.test_callbacks import post


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_story(tmp_path_factory.mktemp("story") / "story.db")


@pytest.fixture(scope="module")
def story(stored: str) -> Iterator[StudySource]:
    source = StudySource(stored)
    yield source
    source.close()


def page(source: StudySource, number: int) -> str:
    return text_of(page_at(source, f"/study/{NAME}/trial/{number}", None))


def words_of(component: Any) -> str:
    """Return the text that a reader sees, without markup."""
    if isinstance(component, Component):
        return words_of(getattr(component, "children", None))
    if isinstance(component, list | tuple):
        return " ".join(words_of(part) for part in component)
    return "" if component is None else str(component)


def told(source: StudySource, number: int) -> str:
    return words_of(page_at(source, f"/study/{NAME}/trial/{number}", None))


def test_a_trial_with_a_past_tells_it(story: StudySource) -> None:
    said = told(story, PARENT)
    for part in (
        "This is attempt 2. Before: its process died.",
        "lost its worker worker-1: its process died after 12.5 s in its stage",
        "The loss on text held out from the healing fell from 4.1 to 2.6 nats per token in 60 steps.",
        "not counted in 1 of 4 stages",
        "perplexity 6.670 ± 0.040 ppl 1.42 × 5 measured cpu:test-machine",
        "Its healed factors were the start of  trial 2",
        "The search itself began from earlier studies: 3 trials of earlier.",
        "50.0 % of the weights of these layers and 50.0 % of their bytes",
        "low rank, rank 34",
    ):
        assert part in said
    assert "healing-graph" in page(story, PARENT)


def test_lineage_and_neighbours_lead_to_their_trials(story: StudySource) -> None:
    child = page(story, CHILD)
    said = told(story, CHILD)
    assert "Its healing started from the healed factors of  trial 1" in said
    assert "Moved from its plan were  trial 3" in said
    assert f'"/study/{NAME}/trial/{PARENT}"' in child
    assert "factorise.keep_ratio: 0.45 → 0.5" in said
    assert "That was no gain" in said
    assert "Its plan is a small move away from that of  trial 2" in told(story, MOVED)
    assert "4 bits, groups of 64" in told(story, MOVED)


@pytest.mark.parametrize(
    ("number", "parts", "absent"),
    [
        (DENSE, ("this is the dense model", "near to no other", "hpo export"), "Healing"),
        (STOPPED, ("It was stopped: it is dominated", "Only a completed trial", "heal 3 s"), "hpo export"),
        (FAILED, ("It failed: error.", "Nothing is known of its plan.", "No stage is done."), "hpo export"),
        (RUNNING, ("It runs on worker-2.", "Nothing is measured yet."), "hpo export"),
        (WAITING, ("It waits for a free worker.", "Nothing is measured before it runs."), "hpo export"),
    ],
)
def test_every_state_says_what_it_is_and_what_there_is_not(
    story: StudySource, number: int, parts: tuple[str, ...], absent: str
) -> None:
    said = told(story, number)
    for part in parts:
        assert part in said
    assert absent not in said


def test_the_healing_of_a_stopped_trial_is_shown(story: StudySource) -> None:
    assert "healing-graph" in page(story, STOPPED)


def test_a_long_message_that_wants_to_be_markup_is_text(story: StudySource) -> None:
    assert len(NASTY) > 290
    assert NASTY in told(story, FAILED)
    assert "dangerously" not in page(story, FAILED)


def test_a_healing_whose_losses_were_not_kept_says_so(tmp_path: Path) -> None:
    source, lease, store = _writable(tmp_path)
    running = store.trial(NAME, RUNNING).advanced(StageTime("heal", 1.0), (), {"heal_shared_run": "gone"})
    store.save_trial(lease, running, EventKind.STAGE_DONE, START + 900, {"stage": "heal", "seconds": 1.0})
    said = told(source, RUNNING)
    assert "It took a healing that was done for several trials, whose losses were not kept." in said
    assert "Done so far: heal." in said
    store.close()
    source.close()


def _writable(path: Path) -> tuple[StudySource, Any, Store]:
    url = write_story(path / "s.db")
    store = Store.open(url)
    return StudySource(url), store.acquire(NAME, "test", 600.0, START + 800), store


def test_a_trial_can_have_twelve_objectives(tmp_path: Path) -> None:
    source = StudySource(write_wide(tmp_path / "wide.db"))
    said = words_of(page_at(source, "/study/wide/trial/1", None))
    objectives = source.snapshot("wide").record.study.objectives
    source.close()
    assert len(objectives) == 12
    for objective in objectives:
        assert said.count(objective.metric.replace("_", " ")) >= 2, "a tile and a row of measurements"


def test_a_trial_in_a_study_of_one_has_no_neighbour(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    with Store.open(url) as store:
        store.create_study(study_named("one"), {}, START)
        lease = store.acquire("one", "test", 600.0, START)
        store.add_trial(lease, asked(0, candidate(0.4), "sobol"), (), START)
    source = StudySource(url)
    said = words_of(page_at(source, "/study/one/trial/0", None))
    source.close()
    assert "No other trial is completed yet." in said
    assert "It started from the dense model" in said


# What the page answers


def tick(app: Dash, number: int, seen: str) -> Any:
    question = {"name": NAME, "number": number}
    return post(
        app, "trial-below", "trial-tick.n_intervals", trial_asked__data=question, trial_seen__data=seen
    )


def test_a_tick_sends_the_page_only_when_the_trial_changed(tmp_path: Path) -> None:
    _, lease, store = _writable(tmp_path)
    app = create_app(f"sqlite:///{tmp_path / 's.db'}", Access(TOKEN, "entrance"))
    seen = tick(app, RUNNING, "")["trial-seen"]["data"]
    assert set(tick(app, RUNNING, seen)) == {"trial-notice"}
    waiting = store.trial(NAME, WAITING)
    store.save_trial(lease, waiting.started("worker-3", START + 901), EventKind.STARTED, START + 901)
    later = tick(app, RUNNING, seen)
    assert set(later) == {"trial-notice", "trial-seen"}, "another trial's news are no reason to redraw"
    running = store.trial(NAME, RUNNING).advanced(StageTime("heal", 4.0))
    store.save_trial(lease, running, EventKind.STAGE_DONE, START + 902, {"stage": "heal", "seconds": 4.0})
    news = tick(app, RUNNING, later["trial-seen"]["data"])
    assert "Done so far: heal." in json.dumps(news["trial-body"])
    assert "heal, 4 s" in json.dumps(news["trial-below"])
    store.close()


def test_a_trial_that_is_deleted_while_it_is_shown_is_said_to_be_gone(tmp_path: Path) -> None:
    _, lease, store = _writable(tmp_path)
    app = create_app(f"sqlite:///{tmp_path / 's.db'}", Access(TOKEN, "entrance"))
    seen = tick(app, PARENT, "")["trial-seen"]["data"]
    store.release(lease, START + 801)
    store.delete_study(NAME)
    gone = tick(app, PARENT, seen)
    assert set(gone) == {"trial-notice"}
    assert f"there is no study '{NAME}'" in json.dumps(gone)
    store.create_study(study_named(NAME), {}, START + 1)
    assert "it has no trials yet" in json.dumps(tick(app, PARENT, seen))
    assert plan_of(app, PARENT, "bytes") == {}
    store.close()


def plan_of(app: Dash, number: int, of: str) -> Any:
    question = {"name": NAME, "number": number}
    return post(app, "plan-graph.figure", "plan-of.value", plan_of__value=of, trial_asked__data=question)


def test_the_plan_is_shown_by_weights_or_by_bytes(stored: str) -> None:
    app = create_app(stored, Access(TOKEN, "entrance"))
    shares = {
        of: plan_of(app, MOVED, of)["plan-graph"]["figure"]["data"][0]["x"] for of in ("weights", "bytes")
    }
    assert shares == {"weights": [100.0] * 4, "bytes": [25.0] * 4}
