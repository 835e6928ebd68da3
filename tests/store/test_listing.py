"""What the list of studies says beyond counts, on every database."""

import pytest

from hpo.store.listing import COURSE_POINTS
from hpo.store.store import Store
from hpo.store.values import EventKind, StudySummary
from hpo.trial import StageTime, Trial
from tests.store.samples import NOW, begun, completed, make_front, make_study, measured, measurement, waiting


def only(store: Store) -> StudySummary:
    (summary,) = store.studies()
    return summary


def test_best_values_are_those_of_the_last_fronts_members_alone(store: Store) -> None:
    lease = begun(store)
    for number, value in ((0, 5.0), (1, 3.0), (2, 4.0)):
        store.add_trial(lease, waiting(number), (), NOW)
        store.save_trial(lease, completed(number, value=value), EventKind.COMPLETED, NOW)
    store.save_front(lease, make_front(1, (0, 1)))
    assert only(store).best["perplexity"] == 3.0
    store.save_front(lease, make_front(2, (0, 2)))
    assert only(store).best == {"perplexity": 4.0, "weight_memory": 1_048_576.0}


def test_of_two_measurements_of_a_trial_the_later_one_counts(store: Store) -> None:
    lease = begun(store)
    again = measured(0, value=2.0).advanced(StageTime("measure", 1.0), [measurement("perplexity", 6.0)])
    store.add_trial(lease, waiting(0), (), NOW)
    store.save_trial(lease, again.completed(NOW), EventKind.COMPLETED, NOW)
    store.save_front(lease, make_front(1, (0,)))
    assert only(store).best["perplexity"] == 6.0


def test_measurements_of_a_lost_attempt_do_not_count(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(0), (), NOW)
    store.save_trial(lease, measured(0, attempt=1, value=1.0), EventKind.STAGE_DONE, NOW)
    store.save_trial(lease, waiting(0, attempt=2), EventKind.REQUEUED, NOW)
    store.save_trial(lease, completed(0, attempt=2, value=5.0), EventKind.COMPLETED, NOW)
    store.save_front(lease, make_front(1, (0,)))
    assert only(store).best["perplexity"] == 5.0


def test_what_is_measured_beside_the_objectives_is_not_listed(store: Store) -> None:
    lease = begun(store)
    more = measured(0).advanced(StageTime("measure", 1.0), [measurement("energy", 6.0)])
    store.add_trial(lease, waiting(0), (), NOW)
    store.save_trial(lease, more.completed(NOW), EventKind.COMPLETED, NOW)
    store.save_front(lease, make_front(1, (0,)))
    assert set(only(store).best) == {"perplexity", "weight_memory"}


@pytest.mark.parametrize("count", [1, COURSE_POINTS, COURSE_POINTS + 1, 5 * COURSE_POINTS + 3])
def test_the_course_of_many_fronts_is_thinned_and_ends_with_the_last(store: Store, count: int) -> None:
    lease = begun(store)
    for revision in range(1, count + 1):
        store.save_front(lease, make_front(revision, (0,), revision / 1000))
    course = only(store).course
    assert course[-1] == (3, count / 1000)
    assert (
        len(course) == count
        if count <= COURSE_POINTS
        else COURSE_POINTS / 2 <= len(course) <= COURSE_POINTS + 1
    )
    assert sorted(course) == list(course)


def test_fronts_from_before_the_box_was_fixed_are_no_points_of_the_course(store: Store) -> None:
    lease = begun(store)
    store.save_front(lease, make_front(1, (0,), None))
    store.save_front(lease, make_front(2, (0,), 0.25))
    assert only(store).course == ((3, 0.25),)


def test_a_worker_of_two_trials_counts_once_and_one_that_is_done_does_not(store: Store) -> None:
    lease = begun(store)

    def started(number: int, worker: str) -> Trial:
        store.add_trial(lease, waiting(number), (), NOW)
        trial = waiting(number).started(worker, NOW)
        store.save_trial(lease, trial, EventKind.STARTED, NOW)
        return trial

    for number, worker in enumerate(("worker-0", "worker-0", "worker-1")):
        started(number, worker)
    store.save_trial(lease, started(3, "worker-2").completed(NOW), EventKind.COMPLETED, NOW)
    store.create_study(make_study("idle"), {}, NOW + 1)
    assert [summary.workers for summary in store.studies()] == [2, 0]


def test_the_lease_is_there_expired_or_not_until_it_is_given_back(store: Store) -> None:
    lease = begun(store)
    assert only(store).lease_until == NOW + 60
    store.release(lease, NOW)
    assert only(store).lease_until is None
