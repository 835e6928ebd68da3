"""How losses are put before a model, and the box in which they are judged."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.problem import Problem
from hpo.search.history import blames_candidate, excess, start_left
from hpo.search.outcomes import NoModel, Scale, box
from hpo.trial import Cause, Limit, Objective, Trial, TrialState
from tests.search.problems import compression, line

LOSSES = st.lists(st.floats(0.01, 1e6), min_size=2, max_size=30)


@given(LOSSES, st.floats(0.01, 1e5), st.booleans())
def test_a_scale_is_undone(losses: list[float], reference: float, negative: bool) -> None:
    values = np.array(losses) * (-1 if negative else 1)
    scale = Scale.of(values, -reference if negative else reference)
    assert scale.backward(scale.forward(values)) == pytest.approx(values, rel=1e-6)


@given(LOSSES, st.floats(0.01, 1e5))
def test_a_scale_keeps_the_order_and_standardises(losses: list[float], reference: float) -> None:
    values = np.sort(losses)
    seen = Scale.of(values, reference).forward(values)
    assert (np.diff(seen) >= -1e-12).all()
    assert seen.mean() == pytest.approx(0, abs=1e-6)
    assert seen.std() == pytest.approx(1, abs=1e-6) or np.ptp(values) < 1e-6 * values.max()


def test_a_logarithm_is_taken_where_it_makes_losses_more_symmetric() -> None:
    assert Scale.of(np.array([1.0, 10.0, 100.0, 1000.0]), 1e4).log
    assert not Scale.of(np.array([0.001, 1.0, 2.0, 3.0]), 4.0).log
    assert not Scale.of(np.array([-1.0, 10.0, 1000.0]), 1e4).log


def test_where_the_dense_model_is_the_best_what_is_lost_against_it_counts() -> None:
    # lost: 0.1, 0.4, 1.6 and 6.4 of a median of 1; evenly spaced as logarithms once a little is taken off
    values = 5 + np.array([0.0, 0.1, 0.4, 1.6, 6.4])
    scale = Scale.of(values, 20.0, dense=5.0)
    assert scale.log
    assert scale.floor == pytest.approx(5 - 0.05 * 0.4)
    assert scale.backward(scale.forward(values)) == pytest.approx(values)
    gaps = np.diff(scale.forward(values))
    assert gaps[-1] == pytest.approx(gaps[-2], rel=0.1)


@pytest.mark.parametrize("dense", [np.nan, 5.5])
def test_a_dense_model_that_is_not_the_best_is_no_floor(dense: float) -> None:
    values = 5 + np.array([0.0, 0.1, 0.4, 1.6, 6.4])
    assert Scale.of(values, 20.0, dense).floor == 0.0


def test_a_catastrophe_leaves_the_scale_to_the_others() -> None:
    good = np.array([20.0, 25.0, 30.0, 40.0, 55.0])
    with_wreck = np.append(good, 1e9)
    scale = Scale.of(with_wreck, reference=60.0)
    seen = scale.forward(with_wreck)
    # log 1e9 lies 16.6 above log 60, which is 15 times the width of log 20 to log 60; drawn in, it is 2.8
    assert scale.log
    assert (seen[5] - seen[4]) / np.ptp(seen[:5]) == pytest.approx(
        (np.log(60 / 55) + np.log(3) * np.log1p(np.log(1e9 / 60) / np.log(3))) / np.log(55 / 20)
    )


def test_where_all_is_beyond_the_reference_the_best_are_still_told_apart() -> None:
    values = np.array([100.0, 110.0, 120.0, 130.0, 1e6])
    seen = Scale.of(values, reference=10.0).forward(values)
    assert np.diff(seen).min() > 0.05


def test_losses_that_do_not_vary_are_seen_as_zero() -> None:
    scale = Scale.of(np.array([3.0, 3.0]), reference=5.0)
    assert scale.forward(np.array([3.0])) == pytest.approx([0.0])
    assert scale.backward(np.zeros(1)) == pytest.approx([3.0])


def test_what_no_process_should_say_stays_finite() -> None:
    scale = Scale.of(np.array([1.0, 10.0, 100.0, 1e4]), reference=50.0)
    assert np.isfinite(scale.backward(np.array([-1e6, 1e6]))).all()


def test_the_box_is_the_study_s_own_once_anchors_fix_it() -> None:
    toy = compression()
    history = toy.start()
    assert box(toy.problem, history) == toy.problem.frame(history)


def test_without_anchors_the_box_ends_a_tenth_beyond_the_front_or_at_a_limit() -> None:
    toy = line(("perplexity", "macs"), ())
    limited = (Objective(metric="perplexity", limit=Limit(value=2.0)), toy.problem.objectives[1])
    problem = Problem(toy.problem.space, limited, (), toy.problem.preview)
    history = [
        measured(toy.trial(i, problem.space.from_unit([x, 0.5])), values)
        for i, (x, values) in enumerate([(0.1, (1.0, 9.0)), (0.2, (3.0, 4.0)), (0.3, (5.0, 99.0))])
    ]
    frame = box(problem, history)
    # the front is (1, 9) and (3, 4): 9 + 0.1 x (9 - 4), and the limit of 2 before 3 + 0.1 x (3 - 1)
    assert frame.reference == pytest.approx((2.0, 9.5))
    assert frame.ideal == pytest.approx((1.0, 4.0))


def test_a_box_needs_a_value_of_every_objective() -> None:
    toy = line(("perplexity", "macs"), ())
    trial = toy.trial(0, toy.problem.space.from_unit([0.5, 0.5]))
    with pytest.raises(NoModel, match="macs"):
        box(toy.problem, [replace(trial, measurements=trial.measurements[:1])])


def measured(trial: Trial, values: tuple[float, ...]) -> Trial:
    new = [replace(m, value=value) for m, value in zip(trial.measurements, values, strict=True)]
    return replace(trial, measurements=tuple(new))


def test_an_accident_of_the_machine_is_not_the_candidate_s_fault() -> None:
    toy = line(("perplexity",), ())
    trial = toy.trial(0, toy.problem.space.from_unit([0.5, 0.5]), state=TrialState.RUNNING)
    blamed = {cause for cause in Cause if blames_candidate(trial.failed(cause, "", 1.0))}
    assert blamed == set(Cause) - {Cause.LOST_WORKER, Cause.CANCELLED}
    assert not blames_candidate(trial.completed(1.0))


def test_excess_is_in_shares_of_the_limit() -> None:
    losses = np.array([[3.0, -8.0, 7.0, 0.5]])
    bounds = np.array([2.0, -10.0, np.inf, 0.0])
    assert excess(losses, bounds).tolist() == [[0.5, 0.2, -np.inf, 0.5]]


def test_the_start_counts_all_but_anchors() -> None:
    toy = compression()
    history = [*toy.start(), toy.trial(3, toy.problem.space.from_unit([0.1] * 8))]
    assert start_left(history, initial=8, count=3) == 3
    assert start_left(history, initial=3, count=3) == 2
    assert start_left(history, initial=1, count=3) == 0
