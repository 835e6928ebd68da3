"""The contract of a store, on every database: trials, measurements, plans, fronts, events."""

import math
import sys
from dataclasses import replace

import pytest

from hpo.errors import NotFound, StoreError
from hpo.healing_curve import HealingCurve
from hpo.space import Candidate, Value
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import Cause, StageTime, Trial
from tests.store.samples import (
    NOW,
    begun,
    completed,
    layers,
    make_front,
    measured,
    measurement,
    running,
    waiting,
)


def test_a_trial_is_read_back_as_it_was_at_every_step_of_its_life(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(0), layers(), NOW)
    assert store.trial("quick", 0) == waiting(0)
    for trial, kind in (
        (running(0), EventKind.STARTED),
        (measured(0), EventKind.STAGE_DONE),
        (completed(0), EventKind.COMPLETED),
    ):
        assert store.save_trial(lease, trial, kind, NOW)
        assert store.trial("quick", 0) == trial
        assert store.trials("quick") == (trial,)


@pytest.mark.parametrize(
    "trial",
    [
        running().stopped("its best case is dominated by trial 3", NOW),
        running().failed(Cause.NOT_A_NUMBER, "loss is nan at step 3", NOW),
        waiting().failed(Cause.CANCELLED, "", NOW),
        replace(measured(), notes={"loss_after": math.inf, "steps": 20.0}),
    ],
    ids=["stopped", "failed", "cancelled", "notes"],
)
def test_every_kind_of_trial_is_read_back_as_it_was(store: Store, trial: Trial) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    assert store.save_trial(lease, trial, EventKind.NOTE, NOW)
    assert store.trial("quick", 0) == trial


def test_candidates_keep_the_types_of_their_values(store: Store) -> None:
    lease = begun(store)
    values: dict[str, Value] = {"a": True, "b": 1, "c": 1.0, "d": "1", "e": 1e-300, "f": 0.1 + 0.2}
    trials = (replace(waiting(0), candidate=Candidate()), replace(waiting(1), candidate=Candidate.of(values)))
    for trial in trials:
        store.add_trial(lease, trial, (), NOW)
    assert store.trial("quick", 0).is_dense
    stored = store.trial("quick", 1).candidate
    assert stored == trials[1].candidate
    assert stored.key == trials[1].candidate.key
    assert [type(value) for _, value in stored.items] == [bool, int, float, str, float, float]


def test_floats_are_kept_to_the_last_bit(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    values = [0.1 + 0.2, 1 / 3, 5e-324, sys.float_info.max, sys.float_info.min, -1e-17, 2.0**53 + 2, 1e22]
    trial = running().advanced(StageTime("s", 1 / 7), [measurement("nll", value) for value in values])
    store.save_trial(lease, trial, EventKind.STAGE_DONE, 1 / 3)
    stored = store.trial("quick", 0)
    assert [m.value for m in stored.measurements] == values
    assert stored.stages[0].seconds == 1 / 7
    assert store.events("quick")[-1].at == 1 / 3


def test_trials_come_in_order_of_number(store: Store) -> None:
    lease = begun(store)
    for number in (2, 0, 11, 1):
        store.add_trial(lease, waiting(number), (), NOW)
    assert [trial.number for trial in store.trials("quick")] == [0, 1, 2, 11]


def test_an_unknown_trial_is_not_found_with_the_numbers_there_are(store: Store) -> None:
    lease = begun(store)
    with pytest.raises(NotFound, match="has no trials yet"):
        store.trial("quick", 0)
    store.add_trial(lease, waiting(0), (), NOW)
    store.add_trial(lease, waiting(1), (), NOW)
    for ask in (
        lambda: store.trial("quick", 7),
        lambda: store.plan("quick", 7),
        lambda: store.save_trial(lease, completed(7), EventKind.COMPLETED, NOW),
    ):
        with pytest.raises(NotFound, match=r"no trial 7(?s:.*)numbered 0 to 1"):
            ask()


def test_a_plan_is_kept_beside_its_trial(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(0), layers(), NOW)
    store.add_trial(lease, waiting(1), (), NOW)
    assert store.plan("quick", 0) == layers()
    assert store.plan("quick", 1) == ()


def test_a_trial_is_asked_once_however_often_it_is_written(store: Store) -> None:
    lease = begun(store)
    for _ in range(2):
        store.add_trial(lease, waiting(0), layers(), NOW)
    assert store.trials("quick") == (waiting(0),)
    assert [event.kind for event in store.events("quick")].count(EventKind.ASKED) == 1


def test_a_number_is_never_given_to_two_trials(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(0), (), NOW)
    with pytest.raises(StoreError, match="already has a trial 0"):
        store.add_trial(lease, replace(waiting(0), candidate=Candidate()), (), NOW)
    assert store.trials("quick") == (waiting(0),)


def test_one_number_in_two_studies_is_two_trials(store: Store) -> None:
    first, second = begun(store, "first"), begun(store, "second")
    for lease in (first, second):
        store.add_trial(lease, waiting(0), (), NOW)
    store.save_trial(second, completed(0), EventKind.COMPLETED, NOW)
    assert store.trials("first") == (waiting(0),)
    assert store.trials("second") == (completed(0),)


def test_measurements_taken_back_are_gone(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    store.save_trial(lease, measured(value=4.7), EventKind.STAGE_DONE, NOW)
    corrected = running().advanced(StageTime("screen", 1.0), [measurement("perplexity", 5.0)])
    store.save_trial(lease, corrected, EventKind.STAGE_DONE, NOW)
    assert store.trial("quick", 0) == corrected


def test_a_requeued_trial_starts_without_the_lost_attempts_measurements(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    store.save_trial(lease, measured(), EventKind.STAGE_DONE, NOW)
    store.save_trial(lease, measured().requeued(), EventKind.REQUEUED, NOW)
    assert store.trial("quick", 0) == waiting(attempt=2)
    store.save_trial(lease, completed(attempt=2, value=3.9), EventKind.COMPLETED, NOW)
    assert store.trials("quick") == (completed(attempt=2, value=3.9),)


def test_the_same_result_again_is_accepted_silently(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    assert store.save_trial(lease, completed(), EventKind.COMPLETED, NOW)
    before = store.events("quick")
    again = replace(completed(), finished_at=NOW + 99, worker="worker-2")
    assert not store.save_trial(lease, again, EventKind.COMPLETED, NOW + 99)
    assert store.trial("quick", 0) == completed()
    assert store.events("quick") == before


@pytest.mark.parametrize(
    "late",
    [
        completed(value=9.9),
        measured(),
        running().failed(Cause.LOST_WORKER, "silent for 60 s", NOW),
        completed(attempt=2),
        measured().requeued(),
    ],
    ids=["other figures", "a stage", "a failure", "another attempt", "a requeue"],
)
def test_a_final_trial_is_never_overwritten_but_the_conflict_is_kept(store: Store, late: Trial) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    store.save_trial(lease, completed(), EventKind.COMPLETED, NOW)
    assert not store.save_trial(lease, late, EventKind.STAGE_DONE, NOW + 50)
    assert store.trial("quick", 0) == completed()
    conflict = store.events("quick")[-1]
    assert (conflict.kind, conflict.at) == (EventKind.CONFLICT, NOW + 50)
    assert (conflict.trial, conflict.attempt) == (0, late.attempt)
    assert conflict.payload["kind"] == "stage_done"
    assert Trial.from_mapping(conflict.payload["refused"]) == late


def test_the_result_of_an_older_attempt_is_a_conflict(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    store.save_trial(lease, measured().requeued(), EventKind.REQUEUED, NOW)
    store.save_trial(lease, running(attempt=2), EventKind.STARTED, NOW)
    assert not store.save_trial(lease, completed(attempt=1), EventKind.COMPLETED, NOW)
    assert store.trial("quick", 0) == running(attempt=2)
    conflict = store.events("quick")[-1]
    assert (conflict.kind, conflict.attempt) == (EventKind.CONFLICT, 1)
    assert conflict.payload["why"] == "attempt 2 is under way"


def test_text_that_databases_refuse_does_not_lose_the_result(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    failed = running().failed(Cause.ERROR, "in \0 file \udcff", NOW)
    assert store.save_trial(lease, failed, EventKind.FAILED, NOW, {"text": "\0\udcff"})
    assert store.trial("quick", 0).message == "in \N{REPLACEMENT CHARACTER} file ?"
    assert not store.save_trial(lease, failed, EventKind.FAILED, NOW)
    assert EventKind.CONFLICT not in [event.kind for event in store.events("quick")]


def test_notes_that_were_read_can_be_changed_without_changing_the_store(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW)
    store.save_trial(lease, completed(), EventKind.COMPLETED, NOW)
    read = store.trial("quick", 0)
    assert isinstance(read.notes, dict)
    read.notes.clear()
    assert store.trial("quick", 0).notes == {"loss_before": 2.5}


def test_trials_since_an_event_are_those_that_changed(store: Store) -> None:
    lease, other = begun(store), begun(store, "other")
    for number in range(4):
        store.add_trial(lease, waiting(number), (), NOW)
    everything, newest = store.trials_since("quick", 0)
    assert everything == store.trials("quick")
    assert newest == store.events("quick")[-1].id
    assert store.trials_since("quick", newest) == ((), newest)
    store.add_trial(other, waiting(0), (), NOW)
    assert store.trials_since("quick", newest) == ((), newest)
    for trial in (running(3), running(1), measured(1)):
        store.save_trial(lease, trial, EventKind.STARTED, NOW)
    changed, later = store.trials_since("quick", newest)
    assert changed == (measured(1), running(3))
    assert later > newest
    assert store.trials_since("quick", later) == ((), later)


def test_fronts_are_kept_in_order_of_revision(store: Store) -> None:
    lease = begun(store)
    assert store.front("quick") is None
    assert store.fronts("quick") == ()
    unfixed = replace(make_front(1, (0,), None), reference=(), ideal=())
    for front in (unfixed, make_front(2), make_front(10)):
        store.save_front(lease, front)
    assert store.fronts("quick") == (unfixed, make_front(2), make_front(10))
    assert store.front("quick") == make_front(10)
    event = store.events("quick")[-1]
    assert (event.kind, event.at) == (EventKind.FRONT, NOW + 10)
    assert event.payload == {"revision": 10, "members": [0, 2], "hypervolume": 0.5}


def test_a_revision_of_the_front_is_written_once(store: Store) -> None:
    lease = begun(store)
    store.save_front(lease, make_front(1))
    store.save_front(lease, make_front(1))
    with pytest.raises(StoreError, match="another front of revision 1"):
        store.save_front(lease, make_front(1, members=(5,)))
    assert store.fronts("quick") == (make_front(1),)


def test_events_are_in_order_and_can_be_read_in_parts(store: Store) -> None:
    lease = begun(store)
    store.note(lease, EventKind.NOTE, NOW + 1)
    store.note(lease, EventKind.LOST, NOW + 2, 3, 1, {"worker": "w", "seconds": 0.1})
    events = store.events("quick")
    assert [event.kind for event in events] == [
        EventKind.CREATED,
        EventKind.LEASE,
        EventKind.NOTE,
        EventKind.LOST,
    ]
    assert [event.id for event in events] == sorted({event.id for event in events})
    last = events[-1]
    assert (last.at, last.trial, last.attempt) == (NOW + 2, 3, 1)
    assert last.payload == {"worker": "w", "seconds": 0.1}
    assert (events[2].trial, events[2].attempt, events[2].payload) == (None, None, {})
    assert store.events("quick", after=events[1].id) == events[2:]
    assert store.events("quick", after=events[0].id, limit=2) == events[1:3]
    assert store.events("quick", after=last.id) == ()


def test_the_events_of_a_trial_are_those_of_all_its_attempts_and_no_other_trials(store: Store) -> None:
    lease = begun(store)
    for number in (0, 1):
        store.add_trial(lease, waiting(number), layers(), NOW)
        store.save_trial(lease, running(number), EventKind.STARTED, NOW + 1)
    store.save_trial(lease, running(0).requeued(), EventKind.REQUEUED, NOW + 2, {"why": "gone"})
    found = store.trial_events("quick", 0)
    assert [e.kind for e in found] == [EventKind.ASKED, EventKind.STARTED, EventKind.REQUEUED]
    assert [e.attempt for e in found] == [1, 1, 2]
    assert found[-1].payload == {"why": "gone"}
    for read in (store.trial_events, store.healing_curve):
        with pytest.raises(NotFound, match="has no trial 2"):
            read("quick", 2)
        with pytest.raises(NotFound, match="no study 'other'"):
            read("other", 0)


def test_the_healing_curve_is_the_last_one_of_the_latest_attempt(store: Store) -> None:
    short = HealingCurve("cross_entropy", ((1, 3.0),), ((0, 4.0), (1, 3.5)))
    whole = HealingCurve("cross_entropy", ((1, 3.0), (2, 2.5)), ((0, 4.0), (1, 3.5), (2, 3.25)))
    lease = begun(store)
    store.add_trial(lease, waiting(), layers(), NOW)
    store.save_trial(lease, running(), EventKind.STARTED, NOW + 1)
    assert store.healing_curve("quick", 0) is None
    for seen, curve in (("heal", short), ("heal_on", whole)):
        payload = {"stage": seen, "seconds": 1.0, "joules": None, "curve": curve.to_mapping()}
        store.save_trial(lease, running(), EventKind.STAGE_DONE, NOW + 2, payload)
        assert store.healing_curve("quick", 0) == curve
    payload = {"stage": "measure", "seconds": 1.0, "joules": None}
    store.save_trial(lease, running(), EventKind.STAGE_DONE, NOW + 3, payload)
    assert store.healing_curve("quick", 0) == whole
    store.save_trial(lease, running().requeued(), EventKind.REQUEUED, NOW + 4)
    assert store.healing_curve("quick", 0) is None, "the next attempt has not healed"
