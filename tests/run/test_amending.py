"""A study that changes its question: what may change, what may not, and what is measured for it."""

import time
from typing import Any

import pytest

from hpo.errors import InvalidStudy, StoreError, UsageError
from hpo.run.amending import amend, check_amendment, check_same_question, differences
from hpo.run.lease import owner_name
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.study import Study
from hpo.study_file import changed
from hpo.trial import TrialState
from tests.run import benches
from tests.run.conftest import coordinate, coordinator, in_process

TIMED = ["perplexity", "weight_memory", "prefill_latency"]


def wider(**parameters: Any) -> Study:
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}, **parameters}
    return benches.study(space=space)


def test_differences_name_the_keys_that_are_not_the_same() -> None:
    one = benches.study()
    assert differences(one, one) == ()
    assert differences(one, benches.study(trials=20, objectives=["perplexity"])) == ("objectives", "budget")


def test_a_wider_range_and_more_choices_are_taken() -> None:
    old = benches.study(space={"m": {"type": "choice", "choices": ["a", "b"]}, "n": _int(1, 9)})
    new = benches.study(space={"m": {"type": "choice", "choices": ["b", "c", "a"]}, "n": _int(0, 12)})
    check_amendment(old, new, ())


def _int(low: int, high: int) -> dict[str, Any]:
    return {"type": "int", "low": low, "high": high}


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (benches.study(space={"y": _int(0, 1)}), "parameter 'x' is gone"),
        (benches.study(space={"x": {"type": "float", "low": 0.1, "high": 1.0}}), "'x' has lost some"),
        (benches.study(space={"x": {"type": "float", "low": 0.0, "high": 0.9}}), "'x' has lost some"),
        (benches.study(space={"x": {"type": "choice", "choices": [0.5]}}), "'x' has lost some"),
        (benches.study(trials=11), "budget.trials is 11, below the budget of 12"),
        (benches.study(model={"source": "other/model", "revision": "a" * 40}), "model of study 'toy'"),
        (
            benches.study(data={"calibration": "reference", "evaluation": {"text": "book.txt"}}),
            "data of study 'toy' cannot change",
        ),
    ],
)
def test_what_would_make_another_study_of_it_is_refused(new: Study, message: str) -> None:
    with pytest.raises(InvalidStudy, match=message):
        check_amendment(benches.study(), new, ())


def test_a_choice_that_is_lost_is_refused() -> None:
    old = benches.study(space={"m": {"type": "choice", "choices": ["a", "b"]}})
    with pytest.raises(InvalidStudy, match="'m' has lost some"):
        check_amendment(old, benches.study(space={"m": {"type": "choice", "choices": ["a", "c"]}}), ())


def test_a_parameter_that_old_trials_lack_is_refused_by_the_trial(store: Store) -> None:
    coordinate(store, benches.study(trials=6), in_process(benches.study()))
    with pytest.raises(InvalidStudy, match=r"trial \d+ .* is no candidate of the new space(?s:.*)`when`"):
        amend(store, wider(y=_int(0, 1)), "test")
    assert store.study("toy").study == benches.study(trials=6)


def test_an_amended_study_goes_on_and_measures_only_what_is_missing(store: Store) -> None:
    old = benches.study(trials=8)
    coordinate(store, old, in_process(old))
    before = {t.number: t for t in store.trials("toy")}
    assert amend(store, benches.study(trials=9, objectives=TIMED), "more") == ("objectives", "budget")
    record = store.study("toy")
    assert record.state is StudyState.STOPPED
    assert "amended: objectives, budget (it was finished" in record.message
    coordinator(store, record.study, in_process(record.study, _latency=True)).run()
    trials = store.trials("toy")
    again = [t for t in trials if t.attempt > 1]
    assert again
    for trial in again:
        assert trial.measurements[:2] == before[trial.number].measurements
        assert [m.metric for m in trial.measurements[2:]] == ["prefill_latency"]
    assert all(t == before[t.number] for t in trials if t.attempt == 1 and t.number in before)
    front = store.front("toy")
    assert front is not None
    assert len(front.reference) == 3
    assert len(trials) == 9


def test_a_dropped_objective_needs_no_measuring_and_the_front_follows(store: Store) -> None:
    old = benches.study(trials=10, objectives=TIMED)
    coordinate(store, old, in_process(old, _latency=True))
    before = store.trials("toy")
    amend(store, benches.study(trials=10, objectives=["perplexity", "weight_memory"]), "fewer")
    new = store.study("toy").study
    assert coordinator(store, new, in_process(new)).run().state is StudyState.FINISHED
    assert store.trials("toy") == before
    front = store.front("toy")
    assert front is not None
    assert len(front.reference) == 2


def test_a_tighter_limit_takes_members_off_the_front_at_once(store: Store) -> None:
    old = benches.study(trials=12)
    coordinate(store, old, in_process(old))
    tight = benches.study(trials=12, objectives=["perplexity", {"metric": "weight_memory", "limit": 400}])
    amend(store, tight, "tighter")
    coordinator(store, tight, in_process(tight)).run()
    front = store.front("toy")
    assert front is not None
    assert front.members
    by_number = {t.number: t for t in store.trials("toy")}
    sizes = [by_number[n].value("weight_memory") for n in front.members]
    assert all(size is not None and size <= 400 for size in sizes)
    assert front.reference[1] == 400


def test_a_wider_space_is_searched_beyond_where_the_old_one_ended(store: Store) -> None:
    narrow = benches.study(trials=8, space={"x": {"type": "float", "low": 0.4, "high": 0.6}})
    coordinate(store, narrow, in_process(narrow))
    wide = benches.study(trials=16)
    amend(store, wide, "wider")
    coordinator(store, wide, in_process(wide)).run()
    new = [benches.x_of(t.candidate) for t in store.trials("toy")[8:] if not t.is_dense]
    assert any(x < 0.4 or x > 0.6 for x in new)
    assert all(t.state is TrialState.COMPLETED for t in store.trials("toy"))


def test_the_document_before_is_kept_in_the_event(store: Store) -> None:
    old = benches.study(trials=3)
    coordinate(store, old, in_process(old))
    amend(store, benches.study(trials=5), "more to come")
    (event,) = [e for e in store.events("toy") if e.kind is EventKind.AMENDED]
    assert Study.from_mapping(event.payload["before"]) == old
    assert event.payload["why"] == "more to come"


def test_a_change_to_nothing_new_is_refused(store: Store) -> None:
    coordinate(store, benches.study(trials=3), in_process(benches.study()))
    with pytest.raises(UsageError, match="already as that"):
        amend(store, benches.study(trials=3), "")


def test_a_study_that_is_running_cannot_be_amended_under_its_coordinator(store: Store) -> None:
    store.create_study(benches.study(), {}, time.time())
    lease = store.acquire("toy", owner_name(), 30.0, time.time())
    with pytest.raises(StoreError, match="is being run by"):
        amend(store, benches.study(trials=20), "")
    store.release(lease, time.time())


def test_a_file_that_asks_something_else_is_not_taken_for_the_stored_study() -> None:
    stored = benches.study()
    check_same_question(stored, benches.study(trials=30, search={"sampler": "tpe"}), "toy.yaml")
    with pytest.raises(
        UsageError, match=r"toy\.yaml is not what study 'toy' asks: objectives, space differ"
    ) as e:
        check_same_question(stored, wider_objectives(), "toy.yaml")
    assert "hpo amend toy toy.yaml" in e.value.hint


def wider_objectives() -> Study:
    return benches.study(objectives=TIMED, space={"x": {"type": "float", "low": 0.0, "high": 2.0}})


def test_overrides_of_a_stored_study_are_read_like_those_of_a_file() -> None:
    found = changed(benches.study(), ["objectives.1={metric: weight_memory, limit: 300}", "space.x.high=2.0"])
    assert found.objectives[1].limit is not None
    assert found.objectives[1].limit.value == 300
    assert found.space.parameters["x"].describe() != benches.study().space.parameters["x"].describe()
    with pytest.raises(UsageError, match=r"--set objectives\.0\.metric"):
        changed(benches.study(), ["objectives.0.metric=perplexity_of_mind"])
