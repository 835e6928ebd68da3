"""What is spent of a budget, hand-worked; the work on lost attempts as every store keeps it."""

from dataclasses import asdict

import pytest

from hpo.budget import Budget
from hpo.store.spending import Spent, Use, Work, blind, gpus_of
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import StageTime
from tests.store.samples import NOW, begun, layers, running, waiting

WORK = Work(seconds=7200.0, joules=500.0, stages=4, uncounted=1)


def test_stages_add_up_and_those_without_a_reading_are_told_apart() -> None:
    work = Work.of([StageTime("a", 1.5, 30.0), StageTime("b", 2.5), StageTime("c", 1.0, 12.0)])
    assert work == Work(5.0, 42.0, 3, 1)
    assert work + Work.lost(2.0) == Work(7.0, 42.0, 4, 2)
    assert work + WORK - WORK == work


def test_gpu_hours_are_worker_hours_times_the_gpus_of_a_worker() -> None:
    assert Spent(3, 0.5, WORK, gpus_of("cuda: H100", 4)).gpu_hours == 8.0
    assert Spent(3, 0.5, WORK, gpus_of("cuda: H100", 0.5)).gpu_hours == 1.0
    assert Spent(3, 0.5, WORK, gpus_of("cpu: EPYC x2", 4)).gpu_hours == 0.0


def test_each_budget_is_said_with_what_is_spent_of_it() -> None:
    spent = Spent(12, 0.3, WORK, 1.0)
    assert spent.text(Budget(trials=60, hours=2)) == "12 of 60 trials, 0.3 of 2 h"
    assert spent.text(Budget(gpu_hours=4, joules=1200)) == (
        "2 of 4 GPU-hours, 500 of 1,200 J (without 1 stage that had no reading)"
    )
    assert [use.share for use in spent.uses(Budget(trials=60, gpu_hours=4))] == [0.2, 0.5]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(trials=12), ""),
        (Budget(trials=12, hours=0.31, gpu_hours=2.1, joules=501), ""),
        (Budget(hours=0.3), "the budget of hours is used: 0.3 of 0.3 h"),
        (Budget(gpu_hours=1.9), "the budget of GPU-hours is used: 2 of 1.9 GPU-hours"),
        (
            Budget(joules=450, gpu_hours=9),
            "the budget of joules is used: 500 of 450 J (without 1 stage that had no reading)",
        ),
    ],
)
def test_a_budget_is_used_up_once_as_much_is_spent(budget: Budget, said: str) -> None:
    assert Spent(12, 0.3, WORK, 1.0).used_up(budget) == said


def test_joules_that_nobody_counts_are_noticed_after_a_minute_of_work() -> None:
    budget = Budget(joules=10)
    assert blind(budget, Work(59.0, 0.0, 3, 3)) == ""
    assert "no stage could be read" in blind(budget, Work(60.0, 0.0, 3, 3))
    assert "the counter stands still" in blind(budget, Work(60.0, 0.0, 3, 2))
    assert blind(budget, Work(60.0, 0.001, 3, 2)) == ""
    assert blind(Budget(trials=1), Work(60.0, 0.0, 3, 3)) == ""


def test_what_is_spent_is_a_mapping_in_which_nothing_that_was_not_counted_is_a_number() -> None:
    assert Spent(2, 0.5, Work(1800.0, 0.0, 3, 3), 0.0).to_mapping() == {
        "trials": 2,
        "hours": 0.5,
        "worker_hours": 0.5,
        "gpu_hours": None,
        "joules": None,
        "uncounted_stages": 3,
    }
    assert Spent(2, 0.5, WORK, 1.0).to_mapping()["joules"] == 500.0
    assert str(Use(1.0, 3.0, "h")) == "1 of 3 h"


def test_stages_keep_their_joules_and_older_ones_have_none(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), layers(), NOW)
    trial = running().advanced(StageTime("a", 1.0, 1 / 3)).advanced(StageTime("b", 2.0))
    store.save_trial(lease, trial, EventKind.STAGE_DONE, NOW)
    assert store.trial("quick", 0).stages == (StageTime("a", 1.0, 1 / 3), StageTime("b", 2.0, None))


def test_the_work_on_earlier_attempts_is_found_in_the_events(store: Store) -> None:
    """Attempt 1 did a stage and lost its worker in the next; attempt 2 did one, which its trial shows."""
    lease = begun(store)
    store.add_trial(lease, waiting(), layers(), NOW)
    assert store.lost_work("quick") == Work()
    first, stage = running(), StageTime("a", 1.5, 30.0)
    store.save_trial(lease, first, EventKind.STARTED, NOW)
    store.save_trial(lease, first.advanced(stage), EventKind.STAGE_DONE, NOW, asdict(stage))
    assert store.lost_work("quick") == Work(), "it is the trial's own as long as the attempt goes on"
    store.note(lease, EventKind.LOST, NOW, 0, 1, {"why": "gone", "seconds": 4.0})
    again = first.advanced(stage).requeued()
    store.save_trial(lease, again, EventKind.REQUEUED, NOW, {"why": "gone"})
    second = again.started("worker-2", NOW).advanced(stage)
    store.save_trial(lease, second, EventKind.STAGE_DONE, NOW, asdict(stage))
    assert store.lost_work("quick") == Work(5.5, 30.0, 2, 1)
    assert Work.of_trials(store.trials("quick")) == Work(1.5, 30.0, 1, 0)


def test_events_from_before_energy_was_counted_are_work_without_a_reading(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), layers(), NOW)
    old = {"stage": "a", "seconds": 1.5}
    store.save_trial(lease, running(), EventKind.STAGE_DONE, NOW, old)
    store.save_trial(lease, running().requeued(), EventKind.REQUEUED, NOW, {"why": "gone"})
    assert store.lost_work("quick") == Work(1.5, 0.0, 1, 1)
