"""What objectives and trials alone decide: losses, limits, the comparison box, the front. Hand-worked."""

from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from hpo.metric import METRICS, Metric, Source
from hpo.problem import (
    Preview,
    Problem,
    bounds,
    dense_trial,
    feasible,
    frame,
    losses,
    on_front,
    within_limits,
)
from hpo.space import Candidate, Float, SearchSpace
from hpo.trial import Cause, Limit, Measurement, Objective, StageTime, Trial

QUALITY_AND_BYTES = (
    Objective(metric="perplexity", limit=Limit(ratio_to_dense=1.5)),
    Objective(metric="weight_memory"),
)
NO_LIMITS = (Objective(metric="perplexity"), Objective(metric="weight_memory"))


@pytest.fixture
def _accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    about = Metric("accuracy", "share", "higher", Source.MEASURED, "share of answers that are right")
    monkeypatch.setitem(METRICS, "accuracy", about)


def _running(number: int, values: Mapping[str, float], origin: str, candidate: Candidate | None) -> Trial:
    drawn = Candidate.of({"x": float(number)}) if candidate is None else candidate
    found = [Measurement(name, value, "", Source.MEASURED) for name, value in values.items()]
    return Trial(number, drawn, origin).started("w", 1.0).advanced(StageTime("all", 1.0), found)


def _done(
    number: int, perplexity: float | None, memory: float | None, origin: str = "sobol", dense: bool = False
) -> Trial:
    given = {"perplexity": perplexity, "weight_memory": memory}
    values = {name: value for name, value in given.items() if value is not None}
    return _running(number, values, origin, Candidate() if dense else None).completed(2.0)


DENSE = _done(0, 10.0, 100.0, "anchor:dense", dense=True)


def _problem(objectives: Iterable[Objective]) -> Problem:
    def nothing(candidates: object) -> Preview:
        return Preview(np.empty((0, 0)), np.empty((0, 0)), (), ())

    return Problem(SearchSpace({"x": Float(low=0, high=1)}), tuple(objectives), ("weight_memory",), nothing)


def test_losses_have_a_row_a_trial_and_a_column_an_objective_with_gaps_where_nothing_is_known() -> None:
    found = losses(QUALITY_AND_BYTES, [DENSE, _done(1, None, 50.0), _done(2, None, None)])
    np.testing.assert_array_equal(found, [[10.0, 100.0], [np.nan, 50.0], [np.nan, np.nan]])
    assert losses(QUALITY_AND_BYTES, []).shape == (0, 2)


@pytest.mark.usefixtures("_accuracy")
def test_where_higher_is_better_the_loss_has_the_other_sign() -> None:
    objectives = (Objective(metric="accuracy", limit=Limit(value=0.6)),)
    trial = _running(1, {"accuracy": 0.7}, "sobol", None).completed(2.0)
    assert losses(objectives, [trial]).tolist() == [[-0.7]]
    assert bounds(objectives, [trial]).tolist() == [-0.6]
    assert within_limits(objectives, [trial]).tolist() == [True]


def test_a_relative_bound_is_open_until_the_dense_model_is_done() -> None:
    assert bounds(QUALITY_AND_BYTES, []).tolist() == [np.inf, np.inf]
    assert bounds(QUALITY_AND_BYTES, [DENSE]).tolist() == [15.0, np.inf]


def test_a_dense_trial_that_failed_fixes_no_bound() -> None:
    failed = _running(0, {"perplexity": 10.0}, "anchor:dense", Candidate()).failed(Cause.ERROR, "x", 2.0)
    assert dense_trial([failed]) is None
    assert bounds(QUALITY_AND_BYTES, [failed]).tolist() == [np.inf, np.inf]
    assert dense_trial([failed, DENSE]) is DENSE


def test_an_absolute_bound_stands_from_the_start() -> None:
    objectives = (Objective(metric="perplexity", limit=Limit(value=12.0)),)
    assert bounds(objectives, []).tolist() == [12.0]


def test_the_box_goes_from_zero_to_the_limit_or_a_tenth_above_the_worst_anchor() -> None:
    found = frame(QUALITY_AND_BYTES, [DENSE, _done(1, 30.0, 120.0, "anchor:largest")])
    assert found is not None
    assert found.ideal == (0.0, 0.0)
    assert found.reference == pytest.approx((15.0, 132.0))


def test_only_completed_anchors_move_the_box() -> None:
    stopped = _running(2, {"weight_memory": 900.0}, "anchor:largest", None).stopped("why", 2.0)
    found = frame(QUALITY_AND_BYTES, [DENSE, _done(1, 12.0, 500.0), stopped])
    assert found is not None
    assert found.reference == pytest.approx((15.0, 110.0))


def test_there_is_no_box_while_a_side_is_open() -> None:
    assert frame(QUALITY_AND_BYTES, []) is None
    assert frame(QUALITY_AND_BYTES, [_done(1, 12.0, 50.0)]) is None
    assert frame(NO_LIMITS, [_done(0, None, 100.0, "anchor:dense", dense=True)]) is None


def test_absolute_limits_on_every_objective_fix_the_box_before_any_trial() -> None:
    objectives = (
        Objective(metric="perplexity", limit=Limit(value=12.0)),
        Objective(metric="weight_memory", limit=Limit(value=64.0)),
    )
    found = frame(objectives, [])
    assert found is not None
    assert (found.ideal, found.reference) == ((0.0, 0.0), (12.0, 64.0))


@pytest.mark.usefixtures("_accuracy")
def test_where_higher_is_better_the_ideal_lies_as_far_above_the_best_anchor_as_zero_below() -> None:
    objectives = (Objective(metric="accuracy"),)
    anchors = [
        _running(0, {"accuracy": 0.8}, "anchor:dense", Candidate()).completed(2.0),
        _running(1, {"accuracy": 0.5}, "anchor:smallest", None).completed(2.0),
    ]
    found = frame(objectives, anchors)
    assert found is not None
    # Losses -0.8 and -0.5: worst -0.5 + 0.05; the range is the larger of 0.35 and 0.45.
    assert found.reference == pytest.approx((-0.45,))
    assert found.ideal == pytest.approx((-0.8 - 0.45,))


def test_a_metric_that_is_zero_at_every_anchor_still_has_a_box() -> None:
    objectives = (Objective(metric="kl_to_dense"),)
    dense = _running(0, {"kl_to_dense": 0.0}, "anchor:dense", Candidate()).completed(2.0)
    found = frame(objectives, [dense])
    assert found is not None
    assert found.ideal == (0.0,)
    assert 0 < found.reference[0] < 1e-6


@pytest.mark.parametrize(
    ("metric", "dense", "worst"),
    [
        ("perplexity", 10.0, 30.0),
        ("nll", 2.0, 2.0 + np.log(3)),
        ("kl_to_dense", 0.0, np.log(3)),
        ("bits_per_byte", 0.9, 0.9 + np.log2(3) / 4),
    ],
)
def test_without_a_limit_the_box_ends_where_a_model_is_of_no_use(
    metric: str, dense: float, worst: float
) -> None:
    objectives = (Objective(metric=metric),)
    anchors = [
        _running(0, {metric: dense}, "anchor:dense", Candidate()).completed(2.0),
        _running(1, {metric: 900.0}, "anchor:smallest", None).completed(2.0),
    ]
    found = frame(objectives, anchors)
    assert found is not None
    assert found.reference == pytest.approx((worst,))


def test_a_limit_of_the_study_s_own_may_lie_beyond_what_is_of_use() -> None:
    objectives = (Objective(metric="perplexity", limit=Limit(ratio_to_dense=50.0)),)
    found = frame(objectives, [_running(0, {"perplexity": 10.0}, "anchor:dense", Candidate()).completed(2.0)])
    assert found is not None
    assert found.reference == pytest.approx((500.0,))


def test_a_limit_below_every_anchor_is_the_reference_all_the_same() -> None:
    objectives = (Objective(metric="weight_memory", limit=Limit(value=5.0)),)
    found = frame(objectives, [DENSE])
    assert found is not None
    assert (found.ideal, found.reference) == ((0.0,), (5.0,))


def test_feasible_is_what_is_completed_and_measured_and_within_its_limits() -> None:
    trials = [
        DENSE,
        _done(1, 15.0, 50.0),
        _done(2, 15.1, 50.0),
        _done(3, None, 50.0),
        _running(4, {"perplexity": 11.0, "weight_memory": 50.0}, "sobol", None),
        _running(5, {"perplexity": 11.0, "weight_memory": 50.0}, "sobol", None).failed(Cause.ERROR, "", 2.0),
        _running(6, {"perplexity": 11.0, "weight_memory": 50.0}, "sobol", None).stopped("", 2.0),
    ]
    expected = [True, True, False, False, False, False, False]
    assert within_limits(QUALITY_AND_BYTES, trials).tolist() == expected
    assert feasible(_problem(QUALITY_AND_BYTES), trials).tolist() == expected
    assert within_limits(QUALITY_AND_BYTES, []).tolist() == []


def test_the_front_is_searched_among_feasible_trials_only() -> None:
    trials = [
        DENSE,
        _done(1, 14.0, 50.0),
        _done(2, 14.5, 60.0),  # dominated by trial 1
        _done(3, 15.5, 10.0),  # beyond the limit; would dominate nothing it may
        _done(4, 14.0, 50.0),  # as good as trial 1
        _done(5, None, 1.0),
    ]
    assert on_front(QUALITY_AND_BYTES, trials).tolist() == [True, True, False, False, True, False]
    assert on_front(QUALITY_AND_BYTES, []).tolist() == []


def test_a_problem_answers_as_the_plain_functions_do() -> None:
    problem, trials = _problem(QUALITY_AND_BYTES), [DENSE, _done(1, 14.0, 50.0)]
    np.testing.assert_array_equal(problem.losses(trials), losses(QUALITY_AND_BYTES, trials))
    np.testing.assert_array_equal(problem.bounds(trials), bounds(QUALITY_AND_BYTES, trials))
    assert problem.frame(trials) == frame(QUALITY_AND_BYTES, trials)
