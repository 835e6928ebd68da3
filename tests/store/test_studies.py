"""The contract of a store, on every database: studies, requests, states."""

import pytest

from hpo.errors import LeaseLost, NotFound, StoreError, UsageError
from hpo.space import Float, SearchSpace
from hpo.store.store import Store
from hpo.store.values import EventKind, Request, StudyState, StudySummary
from hpo.trial import Cause
from tests.store.samples import NOW, begun, completed, make_front, make_study, running, waiting


def test_parameters_are_read_back_in_the_order_of_the_file(store: Store) -> None:
    """Which is a quasi-random sequence's order too: in another, a resumed search would go another way."""
    study = make_study()
    words = ("zeta", "alpha", "mid")
    space = SearchSpace.of((name, Float(low=0.0, high=1.0)) for name in words)
    store.create_study(study.model_copy(update={"space": space}), {}, NOW)
    assert tuple(store.study(study.name).study.space.parameters) == words


def test_a_created_study_is_read_back_as_it_was(store: Store) -> None:
    study = make_study()
    store.create_study(study, {"torch": "2.13", "machine": "x86_64"}, NOW)
    record = store.study("quick")
    assert record.study == study
    assert record.study.hash == study.hash
    assert record.environment == {"torch": "2.13", "machine": "x86_64"}
    assert (record.state, record.message) == (StudyState.CREATED, "")
    assert (record.created_at, record.updated_at, record.hours) == (NOW, NOW, 0.0)
    assert record.requested is Request.NONE


def test_a_second_study_of_one_name_is_refused_with_both_ways_out(store: Store) -> None:
    store.create_study(make_study(trials=10), {}, NOW)
    with pytest.raises(UsageError, match=r"already a study 'quick'(?s:.*)hpo resume quick(?s:.*)--name"):
        store.create_study(make_study(trials=99), {}, NOW)
    assert store.study("quick").study.budget.trials == 10
    assert len(store.events("quick")) == 1


def test_an_unknown_study_is_not_found_with_the_nearest_name_and_all_names(store: Store) -> None:
    store.create_study(make_study("quickstart"), {}, NOW)
    store.create_study(make_study("energy"), {}, NOW)
    with pytest.raises(NotFound) as caught:
        store.study("quikstart")
    assert "no study 'quikstart'" in caught.value.message
    assert caught.value.hint == "did you mean 'quickstart'? allowed: energy, quickstart"


def test_an_unknown_study_in_an_empty_store_says_how_to_begin(store: Store) -> None:
    with pytest.raises(NotFound, match="hpo launch STUDY"):
        store.study("quick")


@pytest.mark.parametrize(
    "method", ["study", "requested", "trials", "fronts", "front", "events", "holder", "delete_study"]
)
def test_every_question_about_an_unknown_study_says_not_found(store: Store, method: str) -> None:
    with pytest.raises(NotFound, match="no study 'nobody'"):
        getattr(store, method)("nobody")


def test_questions_with_more_arguments_say_not_found_too(store: Store) -> None:
    for ask in (
        lambda: store.trials_since("nobody", 0),
        lambda: store.trial("nobody", 0),
        lambda: store.plan("nobody", 0),
        lambda: store.request("nobody", Request.DRAIN, NOW),
        lambda: store.acquire("nobody", "me", 60.0, NOW),
    ):
        with pytest.raises(NotFound, match="no study 'nobody'"):
            ask()


def test_what_was_read_can_be_changed_without_changing_the_store(store: Store) -> None:
    environment = {"python": "3.11"}
    store.create_study(make_study(), environment, NOW)
    environment["python"] = "2.7"
    record = store.study("quick")
    assert isinstance(record.environment, dict)
    record.environment.clear()
    assert store.study("quick").environment == {"python": "3.11"}


def test_a_request_needs_no_lease_and_is_an_event(store: Store) -> None:
    store.create_study(make_study(), {}, NOW)
    store.request("quick", Request.DRAIN, NOW + 5)
    assert store.requested("quick") is Request.DRAIN
    assert store.study("quick").requested is Request.DRAIN
    last = store.events("quick")[-1]
    assert (last.kind, last.at, last.payload) == (EventKind.REQUESTED, NOW + 5, {"request": "drain"})
    store.request("quick", Request.NONE, NOW + 6)
    assert store.requested("quick") is Request.NONE


def test_a_state_is_kept_with_its_reason_and_time(store: Store) -> None:
    lease = begun(store)
    store.set_state(lease, StudyState.FAILED, "the disk\0 is \ud800full", NOW + 9)
    record = store.study("quick")
    assert (record.state, record.updated_at) == (StudyState.FAILED, NOW + 9)
    assert record.message == "the disk\N{REPLACEMENT CHARACTER} is ?full"
    assert store.events("quick")[-1].kind is EventKind.STATE
    assert store.events("quick")[-1].payload["state"] == "failed"


def test_a_bigger_budget_replaces_the_study_and_keeps_the_one_before(store: Store) -> None:
    lease = begun(store)
    store.replace_study(lease, make_study(trials=50), "--trials 50", NOW + 1)
    assert store.study("quick").study == make_study(trials=50)
    assert store.studies()[0].budget_trials == 50
    event = store.events("quick")[-1]
    assert event.kind is EventKind.AMENDED
    assert event.payload["why"] == "--trials 50"
    assert event.payload["before"] == make_study(trials=10).to_mapping()
    assert event.payload["hash"] == make_study(trials=50).hash


def test_a_study_cannot_be_replaced_under_another_name(store: Store) -> None:
    lease = begun(store)
    with pytest.raises(UsageError, match="cannot be renamed"):
        store.replace_study(lease, make_study("other"), "", NOW)


def test_the_environment_of_a_study_that_was_only_submitted_is_recorded_later(store: Store) -> None:
    store.create_study(make_study("quick"), {}, NOW)
    lease = store.acquire("quick", "me", 30, NOW)
    store.set_environment(lease, {"torch": "2.13.0"}, NOW + 1)
    assert store.study("quick").environment == {"torch": "2.13.0"}
    store.acquire("quick", "another", 30, NOW, replacing="me")
    with pytest.raises(LeaseLost):
        store.set_environment(lease, {"torch": "1.0"}, NOW + 2)
    assert store.study("quick").environment == {"torch": "2.13.0"}


def test_hours_add_up(store: Store) -> None:
    lease = begun(store)
    store.add_hours(lease, 0.25)
    store.add_hours(lease, 1.5)
    assert store.study("quick").hours == 1.75


def test_the_list_of_an_empty_store_is_empty(store: Store) -> None:
    assert store.studies() == ()


def test_the_list_counts_states_and_causes_and_shows_the_last_front(store: Store) -> None:
    lease = begun(store, "first")
    store.create_study(make_study("second", trials=3, question=""), {}, NOW + 1)
    lost = running(1).failed(Cause.OUT_OF_MEMORY, "", NOW)
    for trial in (waiting(0), waiting(1), waiting(2), waiting(3), waiting(4)):
        store.add_trial(lease, trial, (), NOW)
    store.save_trial(lease, completed(0), EventKind.COMPLETED, NOW)
    store.save_trial(lease, lost, EventKind.FAILED, NOW)
    store.save_trial(lease, running(2).failed(Cause.OUT_OF_MEMORY, "", NOW), EventKind.FAILED, NOW)
    store.save_trial(lease, running(3).failed(Cause.TIMED_OUT, "", NOW), EventKind.FAILED, NOW)
    store.save_front(lease, make_front(1, (0, 2), 0.25))
    store.save_front(lease, make_front(2, (0, 2, 4), 0.5))
    first, second = store.studies()
    assert first == StudySummary(
        name="first",
        question="How small can it get?",
        state=StudyState.CREATED,
        message="",
        counts={"completed": 1, "failed": 3, "waiting": 1},
        causes={"out_of_memory": 2, "timed_out": 1},
        budget_trials=10,
        budget_hours=None,
        hours=0.0,
        objectives=("perplexity", "weight_memory"),
        best={"perplexity": 4.7, "weight_memory": 1_048_576.0},
        hypervolume=0.5,
        course=((3, 0.25), (3, 0.5)),
        front_size=3,
        workers=0,
        lease_until=NOW + 60,
        created_at=NOW,
        updated_at=NOW + 2,
    )
    assert (second.name, second.question, second.budget_trials) == ("second", "", 3)
    assert (second.counts, second.causes, second.hypervolume, second.front_size) == ({}, {}, None, 0)


def test_a_deleted_study_is_gone_with_all_that_was_its_own(store: Store) -> None:
    lease, other = begun(store, "gone"), begun(store, "kept")
    for held in (lease, other):
        store.add_trial(held, waiting(0), (), NOW)
        store.save_trial(held, completed(0), EventKind.COMPLETED, NOW)
        store.save_front(held, make_front())
    store.release(lease, NOW)
    store.delete_study("gone")
    assert [summary.name for summary in store.studies()] == ["kept"]
    assert store.trials("kept") == (completed(0),)
    store.create_study(make_study("gone"), {}, NOW)
    assert store.trials("gone") == ()
    assert store.fronts("gone") == ()
    assert [event.kind for event in store.events("gone")] == [EventKind.CREATED]


def test_a_study_that_is_being_run_cannot_be_deleted(store: Store) -> None:
    store.create_study(make_study(), {}, NOW)
    store.acquire("quick", "node-7:42", 1e9, NOW)
    with pytest.raises(StoreError, match=r"run by node-7:42(?s:.*)hpo stop quick"):
        store.delete_study("quick")
    assert store.study("quick").study == make_study()


def test_a_study_whose_coordinator_is_long_dead_can_be_deleted(store: Store) -> None:
    store.create_study(make_study(), {}, NOW)
    store.acquire("quick", "node-7:42", 1.0, 1_000.0)
    store.delete_study("quick")
    assert store.studies() == ()
