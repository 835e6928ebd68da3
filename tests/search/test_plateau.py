"""The plateau rule: hand-worked gains, textbook bounds, and what counts as a trial of the search."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hpo.metric import Source
from hpo.search.plateau import Growth, Progress, gain_bound, gamma_quantile, growth, progress_of
from hpo.space import Candidate
from hpo.trial import Cause, Measurement, Objective, StageTime, Trial

OBJECTIVES = (Objective(metric="perplexity"), Objective(metric="weight_memory"))
HOUR = 3600.0


def running(number: int, origin: str, hours: float, *values: float) -> Trial:
    candidate = Candidate() if origin == "anchor:dense" else Candidate.of({"x": float(number)})
    names = ("perplexity", "weight_memory")
    found = [
        Measurement(name, value, "", Source.MEASURED) for name, value in zip(names, values, strict=False)
    ]
    return Trial(number, candidate, origin).started("w", 1.0).advanced(StageTime("all", hours * HOUR), found)


def done(
    number: int, perplexity: float, memory: float, origin: str = "bayesian", hours: float = 1.0
) -> Trial:
    return running(number, origin, hours, perplexity, memory).completed(float(number))


def of_gains(*gains: float, hours: float = 0.5, start: int = 0) -> Progress:
    return Progress(gains, (hours,) * len(gains), tuple(i >= start for i in range(len(gains))))


# One anchor at (10, 100): the box is [0, 11] x [0, 110], and the anchor is at 10/11 of each side.
ANCHOR = done(0, 10, 100, "anchor:dense")


@pytest.mark.parametrize(
    ("count", "bound"), [(0, 2.9957), (1, 4.7439), (2, 6.2958), (3, 7.7537), (5, 10.5130)]
)
def test_with_gains_of_one_size_the_bound_is_the_exact_one_of_a_poisson_mean(
    count: int, bound: float
) -> None:
    """One-sided 95 % limits of a Poisson mean, as printed in tables since Garwood (1936)."""
    gains = np.array([0.02] * count + [0.0] * (20 - count))
    assert gain_bound(gains, 0.02, 0.95) == pytest.approx(0.02 * bound, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "probability", "quantile"),
    [(1, 0.9, math.log(10)), (0.5, 0.95, 1.920729), (0.5, 0.99, 3.317448), (12.5, 0.95, 18.826242)],
)
def test_quantiles_of_the_gamma_distribution_are_half_those_of_chi_squared(
    shape: float, probability: float, quantile: float
) -> None:
    """Chi-squared tables: 3.8415 and 6.6349 for one degree of freedom, 37.6525 for 25."""
    assert gamma_quantile(shape, probability) == pytest.approx(quantile, rel=1e-5)


def test_gains_of_two_sizes_are_bounded_by_the_weighted_sum() -> None:
    """y = 0.01 + 0.02 + 0.02 and v = 0.0001 + 0.0004 + 0.0004, so shape 25/9 and scale 0.018."""
    bound = gain_bound(np.array([0.01, 0.02, 0.0]), 0.02, 0.95)
    assert bound == pytest.approx(0.018 * gamma_quantile(25 / 9, 0.95), rel=1e-12)
    assert bound > 0.03


def test_the_bound_holds_at_its_confidence_for_gains_that_come_at_random() -> None:
    """Compound Poisson: 3 gains expected, sizes uniform in [0, 1]; w is the largest size there is."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        gains = rng.random(rng.poisson(3.0))
        held += gain_bound(gains, 1.0, 0.95) >= 1.5
    assert held >= 950


def test_growth_is_the_gain_of_the_last_trials_over_their_hours() -> None:
    found = growth(of_gains(0.3, 0.1, 0, 0, 0.02, 0, 0.02, start=2), trials=4, confidence=0.95)
    assert found is not None
    assert found.gain == pytest.approx(0.04)
    assert (found.trials, found.hours) == (4, 2.0)
    assert found.gain / found.hours == pytest.approx(0.02)
    assert found.bound == pytest.approx(0.02 * 6.2958 / 2.0, rel=1e-4)


def test_without_a_gain_in_the_window_the_largest_one_before_it_may_come_again() -> None:
    """Rule of three: at most 3 times as many gains as the window could show."""
    found = growth(of_gains(0.5, 0.01, 0.04, 0, 0, 0, 0, start=1), trials=4, confidence=0.95)
    assert found is not None
    assert found.gain == 0.0
    assert found.bound == pytest.approx(0.04 * 2.9957 / 2.0, rel=1e-4)


def test_gains_older_than_two_windows_are_past_unless_there_are_no_others() -> None:
    tail = [0.0] * 4
    kept = growth(of_gains(0.5, 0.04, 0.01, *tail, start=0), trials=3, confidence=0.95)
    past = growth(of_gains(0.5, 0.04, 0.01, 0, 0, *tail, start=0), trials=3, confidence=0.95)
    only = growth(of_gains(0.5, *tail, *tail, start=1), trials=3, confidence=0.95)
    assert kept is not None
    assert past is not None
    assert only is not None
    assert kept.bound == pytest.approx(0.04 * 2.9957 / 1.5, rel=1e-4)
    assert past.bound == pytest.approx(0.01 * 2.9957 / 1.5, rel=1e-4)
    assert only.bound == pytest.approx(0.5 * 2.9957 / 1.5, rel=1e-4)


def test_more_time_without_a_gain_lowers_the_bound() -> None:
    bounds = [growth(of_gains(0.1, *[0.0] * 6, hours=hours), 6, 0.95) for hours in (0.1, 1.0, 10.0)]
    values = [found.bound for found in bounds if found is not None]
    assert values == pytest.approx([values[0], values[0] / 10, values[0] / 100])


def test_it_is_too_early_while_the_start_design_and_the_window_are_not_over() -> None:
    gains = (0.3, 0.1, 0.0, 0.0, 0.0)
    assert growth(of_gains(*gains, start=2), trials=4, confidence=0.95) is None
    assert growth(of_gains(*gains, start=1), trials=4, confidence=0.95) is not None


def test_a_study_that_covers_nothing_has_not_levelled_off() -> None:
    assert growth(of_gains(0, 0, 0, 0, 0, 0), trials=5, confidence=0.95) is None


def test_gains_are_shares_of_the_box_in_the_order_of_finishing() -> None:
    """Trial 2 finishes before trial 1 and dominates it; the anchor itself covers 1/121."""
    late = replace(done(1, 5.5, 82.5), finished_at=9.0)
    progress = progress_of(OBJECTIVES, [ANCHOR, late, done(2, 5.5, 55, hours=2.0)], initial=0)
    assert progress is not None
    assert progress.gains == pytest.approx((1 / 121, 0.25 - 1 / 121, 0.0))
    assert progress.hours == (1.0, 2.0, 1.0)
    assert progress.searched == (False, True, True)


def test_a_trial_that_fails_or_is_stopped_costs_its_time_and_gains_nothing() -> None:
    failed = running(1, "bayesian", 3.0).failed(Cause.OUT_OF_MEMORY, "", 1.0)
    stopped = running(2, "bayesian", 2.0).stopped("beaten", 2.0)
    lost = running(3, "bayesian", 5.0).failed(Cause.LOST_WORKER, "", 3.0)
    progress = progress_of(
        OBJECTIVES, [ANCHOR, failed, stopped, lost, running(4, "bayesian", 1.0)], initial=0
    )
    assert progress is not None
    assert progress.gains[1:] == (0.0, 0.0), "an accident of the machine and a trial under way are left out"
    assert progress.hours == (1.0, 3.0, 2.0)


def test_the_start_design_are_the_first_trials_after_the_anchors() -> None:
    given = done(1, 9, 90, "given:0")
    progress = progress_of(
        OBJECTIVES, [ANCHOR, given, done(2, 8, 80), done(3, 7, 70), done(4, 6, 60)], initial=2
    )
    assert progress is not None
    assert progress.searched == (False, False, False, True, True)


def test_hours_count_for_the_gpus_that_a_worker_holds() -> None:
    progress = progress_of(OBJECTIVES, [ANCHOR, done(1, 5, 50, hours=0.5)], initial=0, workers_hour=4.0)
    assert progress is not None
    assert progress.hours == (4.0, 2.0)


def test_without_an_anchor_there_is_no_box_and_nothing_to_tell() -> None:
    assert progress_of(OBJECTIVES, [done(1, 5, 50)], initial=0) is None


def test_what_was_found_is_said_with_its_confidence_and_what_was_asked_for() -> None:
    found = Growth(gain=0.0004, trials=20, hours=1.2, bound=0.003, confidence=0.95)
    assert found.words(0.01, on_gpu=False) == (
        "the front grew by 0.0004 of the box in the last 20 trials (1.2 h of worker time): "
        "at most 0.003 an hour at 95 %, less than the 0.01 asked for"
    )
    assert "1.2 GPU-hours): at most 0.003 a GPU-hour at 95 %, not less than the 0.001 asked" in found.words(
        0.001, on_gpu=True
    )


@pytest.mark.parametrize(
    ("gains", "hours", "searched"),
    [((0.1,), (1.0, 2.0), (True,)), ((-0.1,), (1.0,), (True,)), ((0.1,), (math.inf,), (True,))],
)
def test_progress_that_cannot_be_is_refused(
    gains: tuple[float, ...], hours: tuple[float, ...], searched: tuple[bool, ...]
) -> None:
    with pytest.raises(ValueError, match=r"gains"):
        Progress(gains, hours, searched)
