import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.hypervolume import HypervolumeCurve, draw_hypervolume, hypervolume_curve
from hpo.trial import Cause, Trial
from tests.dashboards.hand import OBJECTIVES, TRIALS, asked, pair


def curve_of(*trials: Trial) -> HypervolumeCurve:
    curve = hypervolume_curve(OBJECTIVES, trials or TRIALS)
    assert curve is not None
    return curve


def test_hypervolumes_are_as_worked_out_by_hand() -> None:
    # The box goes from 0 to the limit of 30 and to 1.1 x 100 bytes. Trial 0 fills 20 x 10 of it,
    # trial 1 adds a step of 10 x 50, trial 4 widens it; 2 is dominated and 3 outside.
    box = 30 * 110
    dense, both, three = 20 * 10, 20 * 10 + 10 * 50, 20 * 10 + 15 * 20 + 10 * 30
    assert curve_of().values == pytest.approx([dense / box, both / box, both / box, both / box, three / box])


def test_hours_are_those_of_all_workers_summed() -> None:
    assert curve_of().hours == (1, 2, 3, 4, 5)


def test_the_caption_names_the_reference_point() -> None:
    assert "perplexity 30 ppl, weight memory 110 bytes" in curve_of().caption


def test_failures_are_points_that_add_nothing() -> None:
    failed = asked(5).started("worker", 0.0).failed(Cause.NOT_A_NUMBER, "", 9.0)
    curve = curve_of(*TRIALS, failed)
    assert curve.numbers == (0, 1, 2, 3, 4, 5)
    assert curve.values[-1] == curve.values[-2]


def test_unfinished_trials_are_no_points() -> None:
    assert curve_of(*TRIALS, asked(5)).numbers == (0, 1, 2, 3, 4)


def test_trials_count_in_the_order_in_which_they_finished() -> None:
    late = pair(9, 20, 50)
    assert curve_of(TRIALS[0], late, TRIALS[4]).numbers == (0, 4, 9)


def test_without_anchors_there_is_no_box_and_the_figure_says_so() -> None:
    assert hypervolume_curve(OBJECTIVES, TRIALS[1:]) is None
    assert "dense model" in draw_hypervolume(None).layout.annotations[0].text


def test_the_figure_shows_percent_against_trials_or_hours() -> None:
    by_trial, by_hour = draw_hypervolume(curve_of()), draw_hypervolume(curve_of(), "hours")
    assert by_trial.data[0].x == (1, 2, 3, 4, 5)
    assert by_hour.data[0].x == (1, 2, 3, 4, 5)
    assert by_hour.layout.xaxis.title.text == "worker hours"
    assert by_trial.data[0].y[0] == pytest.approx(100 * 200 / 3300)


def test_a_curve_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="1 numbers, 0 values and 1 hours"):
        HypervolumeCurve((1,), (), (0.0,), ())


@given(st.lists(st.tuples(st.floats(1, 60), st.floats(1, 200)), max_size=10))
def test_the_curve_never_falls_and_stays_in_the_box(points: list[tuple[float, float]]) -> None:
    found = [pair(1 + i, *point) for i, point in enumerate(points)]
    values = curve_of(TRIALS[0], *found).values
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(values))
