import pytest

from dashboards.hypervolume import Against, hypervolume_curve
from dashboards.remaining import Remaining, remaining_of
from hpo.budget import Budget
from hpo.store.spending import Spent, Work
from tests.dashboards.hand import OBJECTIVES, TRIALS

SPENT = Spent(trials=7, hours=1.5, work=Work(seconds=5 * 3600, joules=900.0, stages=5), gpus=2.0)


def left(**budget: float) -> Remaining:
    return remaining_of(Budget.model_validate(budget), SPENT, finished=5)


def test_trials_are_left_until_they_are_over() -> None:
    assert left(trials=12).trials == 7
    assert left(trials=12).words == "Left of the budget: 7 of 12 trials."


def test_every_budget_that_is_given_is_named() -> None:
    said = left(trials=12, hours=2, gpu_hours=16, joules=1000).words
    assert said == (
        "Left of the budget: 7 of 12 trials, 30 min of 2 h by the clock, 6 of 16 GPU-hours, 100 of 1,000 J."
    )


def test_what_was_overspent_is_not_left() -> None:
    assert left(hours=1).seconds == 0
    assert left(trials=3).trials == 0


@pytest.mark.parametrize(
    ("budget", "against", "end"),
    [
        ({"trials": 12}, "trials", 5 + 7),
        ({"hours": 2}, "seconds", 5 + 1800),
        ({"gpu_hours": 16}, "hours", 10 + 6),
        ({"hours": 2}, "trials", None),
        ({"joules": 1000}, "hours", None),
    ],
)
def test_the_budget_ends_on_the_axis_that_shows_it(
    budget: dict[str, float], against: Against, end: float | None
) -> None:
    curve = hypervolume_curve(OBJECTIVES, TRIALS, gpus=2.0)
    assert curve is not None
    assert left(**budget).end(curve, against) == end


def test_without_a_finished_trial_it_has_no_place() -> None:
    curve = hypervolume_curve(OBJECTIVES, TRIALS[:1])
    assert curve is not None
    empty = type(curve)((), (), (), (), curve.reference)
    assert left(trials=12).end(empty, "trials") is None
