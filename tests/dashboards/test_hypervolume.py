import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.hypervolume import Band, HypervolumeCurve, draw_hypervolume, drawn_points, hypervolume_curve
from hpo.trial import Cause, Limit, Objective, Trial
from tests.dashboards.hand import OBJECTIVES, TRIALS, asked, pair


def curve_of(*trials: Trial, gpus: float = 0.0) -> HypervolumeCurve:
    curve = hypervolume_curve(OBJECTIVES, trials or TRIALS, gpus)
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
    assert curve_of().work == "worker hours"


def test_where_workers_hold_gpus_hours_are_those_of_the_gpus() -> None:
    assert curve_of(gpus=2).hours == (2, 4, 6, 8, 10)
    assert curve_of(gpus=2).work == "GPU-hours"


def test_the_clock_runs_from_the_first_start_of_a_trial() -> None:
    # Trials end at 1, 2, ... 5 s; the first one starts at 0.25 s.
    first = replace(TRIALS[0], started_at=0.25)
    late = [replace(t, started_at=3.0) for t in TRIALS[1:]]
    assert curve_of(first, *late).seconds == (0.75, 1.75, 2.75, 3.75, 4.75)


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


def test_with_limits_alone_there_is_a_box_before_any_trial_has_finished() -> None:
    limited = [Objective(metric=metric, limit=Limit(value=30)) for metric in ("perplexity", "weight_memory")]
    curve = hypervolume_curve(limited, [asked(0)])
    assert curve is not None
    assert (curve.values, curve.last) == ((), 0.0)
    assert "No trial has finished" in draw_hypervolume(curve).layout.annotations[0].text


def test_the_figure_shows_percent_against_trials_the_clock_or_hours() -> None:
    by_trial, by_hour = draw_hypervolume(curve_of()), draw_hypervolume(curve_of(), "hours")
    assert by_trial.data[0].x == (1, 2, 3, 4, 5)
    assert by_hour.data[0].x == (1, 2, 3, 4, 5)
    assert by_hour.layout.xaxis.title.text == "worker hours"
    assert by_trial.data[0].y[0] == pytest.approx(100 * 200 / 3300)
    by_clock = draw_hypervolume(curve_of(), "seconds")
    assert by_clock.data[0].x == (1, 2, 3, 4, 5)
    assert by_clock.layout.xaxis.title.text == "time since the first start [s]"


def test_a_long_clock_is_shown_in_minutes_or_hours() -> None:
    for seconds, unit, last in ((1200.0, "min", 20.0), (36000.0, "h", 10.0)):
        curve = replace(curve_of(), seconds=(0.0, 1.0, 2.0, 3.0, seconds))
        figure = draw_hypervolume(curve, "seconds")
        assert figure.layout.xaxis.title.text == f"time since the first start [{unit}]"
        assert figure.data[0].x[-1] == pytest.approx(last)


def test_the_end_of_the_budget_is_a_line_where_it_is_near() -> None:
    figure = draw_hypervolume(curve_of(), "trials", end=12)
    (region, line) = figure.layout.shapes
    assert (region.x0, region.x1, line.x0, line.x1) == (5, 12, 12, 12)
    assert figure.layout.annotations[0].text == "end of the budget"


def test_a_budget_that_ends_far_away_is_named_and_does_not_squeeze_the_curve() -> None:
    figure = draw_hypervolume(curve_of(), "trials", end=400)
    assert figure.layout.shapes == ()
    assert figure.layout.xaxis.title.text.endswith("the budget ends at 400")


def test_the_band_opens_from_the_end_of_the_curve() -> None:
    curve = replace(curve_of(), seconds=(0.0, 1.0, 2.0, 3.0, 600.0))
    figure = draw_hypervolume(curve, "seconds", band=Band(1200, 0.3, 0.4, 0.6, "10 min more"))
    _, band, expected = figure.data
    now = 100 * curve.last
    assert band.x == (10, 20, 20, 10)  # the axis is in minutes
    assert band.y == pytest.approx((now, 60, 30, now))
    assert (expected.x, expected.y) == ((10, 20), (now, 40))
    assert (band.name, expected.name) == ("10 min more, 90 % interval", "10 min more, expected")


def test_an_estimate_outside_its_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"an estimate of 0.7 between 0.1 and 0.5"):
        Band(1, 0.1, 0.7, 0.5, "")


def test_a_curve_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="1 numbers, 0 values, 1 hours and 2 seconds"):
        HypervolumeCurve((1,), (), (0.0,), (0.0, 1.0), ())


def test_a_long_curve_is_thinned_between_its_rises() -> None:
    values = [0.0] * 5000
    for rise in (17, 1234, 4000):
        values[rise:] = [value + 0.1 for value in values[rise:]]
    drawn = drawn_points(values, 100)
    assert {0, 17, 1234, 4000, 4999} <= set(drawn)
    assert drawn == sorted(set(drawn))
    assert len(drawn) <= 100


def test_a_curve_that_rises_everywhere_is_thinned_too() -> None:
    drawn = drawn_points([i / 5000 for i in range(5000)], 100)
    assert len(drawn) <= 100
    assert {0, 4999} <= set(drawn)


@given(st.lists(st.tuples(st.floats(1, 60), st.floats(1, 200)), max_size=10))
def test_the_curve_never_falls_and_stays_in_the_box(points: list[tuple[float, float]]) -> None:
    found = [pair(1 + i, *point) for i, point in enumerate(points)]
    values = curve_of(TRIALS[0], *found).values
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(values))
