"""Trials that a person asks for: granted, refused with a reason, and never twice."""

import time
from typing import Any

from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.trial import TrialState
from tests.run import benches
from tests.run.conftest import coordinate, in_process


def answers(store: Store) -> list[dict[str, Any]]:
    return [dict(event.payload) for event in store.events("toy") if event.kind is EventKind.ANSWERED]


def wish(store: Store, x: float, origin: str = "given:person") -> None:
    store.wish("toy", Candidate.of({"x": x}), origin, time.time())


def created(store: Store, **changes: Any) -> Any:
    study = benches.study(**changes)
    store.create_study(study, {}, time.time())
    return study


def test_a_wish_is_the_next_trial_and_counts_in_the_budget(store: Store) -> None:
    study = created(store, trials=8)
    wish(store, 0.123)
    outcome = coordinate(store, study, in_process(study))
    trials = store.trials("toy")
    assert trials[0].origin == "given:person"
    assert trials[0].candidate == Candidate.of({"x": 0.123})
    assert trials[0].state is TrialState.COMPLETED
    assert len(trials) == 8
    assert outcome.state is StudyState.FINISHED
    assert answers(store)[0]["trial"] == 0


def test_a_failed_trial_is_tried_again_as_a_new_one(store: Store) -> None:
    study = created(store, trials=6)
    coordinate(store, study, in_process(study, _4="raise"))
    failed = store.trial("toy", 4)
    assert failed.state is TrialState.FAILED
    store.wish("toy", failed.candidate, "retry:4", time.time())
    more = benches.study(7)
    coordinate(store, more, in_process(more))
    again = store.trial("toy", 6)
    assert (again.origin, again.candidate, again.state) == ("retry:4", failed.candidate, TrialState.COMPLETED)
    assert store.trial("toy", 4).state is TrialState.FAILED, "what failed stays on record"


def test_what_cannot_be_is_refused_with_a_reason_and_the_study_goes_on(store: Store) -> None:
    study = created(store, trials=6)
    wish(store, 0.5)
    wish(store, 0.5)
    wish(store, 7.0)
    store.wish("toy", Candidate.of({"y": 1.0}), "given:person", time.time())
    outcome = coordinate(store, study, in_process(study))
    assert outcome.state is StudyState.FINISHED
    refused = [answer.get("refused", "") for answer in answers(store)]
    assert refused[0] == ""
    assert "trial 0 has the same plan" in refused[1]
    assert "outside the space" in refused[2]
    assert "unknown parameter 'y'" in refused[3]
    assert len(store.trials("toy")) == 6


def test_a_wish_is_answered_once_though_the_study_is_resumed(store: Store) -> None:
    study = created(store, trials=4)
    wish(store, 0.123)
    coordinate(store, study, in_process(study))
    more = benches.study(6)
    coordinate(store, more, in_process(more))
    assert len(answers(store)) == 1
    assert [t.origin for t in store.trials("toy")].count("given:person") == 1


def test_a_wish_beyond_the_budget_is_refused(store: Store) -> None:
    study = created(store, trials=4)
    coordinate(store, study, in_process(study))
    wish(store, 0.123)
    coordinate(store, study, in_process(study))
    assert "budget of trials is used" in answers(store)[0]["refused"]


def test_a_look_for_wishes_costs_what_is_new(store: Store) -> None:
    created(store)
    wish(store, 0.1)
    found, newest = store.wishes("toy")
    assert [w.candidate for w in found] == [Candidate.of({"x": 0.1})]
    assert store.wishes("toy", newest) == ((), newest)
    wish(store, 0.2)
    assert [w.candidate for w in store.wishes("toy", newest)[0]] == [Candidate.of({"x": 0.2})]
