import gc
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.measure.stopwatch import (
    Lap,
    Stopwatch,
    Timing,
    block,
    compare,
    is_noisy,
    laps_per_block,
    robust_std,
    wall_stopwatch,
)


class FakeMachine:
    """A clock that stands still but for the work done, and a log of who worked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    @property
    def watch(self) -> Stopwatch:
        return wall_stopwatch(lambda: None, lambda: self.now)

    def lap(self, name: str, ms: Iterable[float]) -> Lap:
        """Return laps that take `ms` in turn, the last for ever, after 1 s of untimed preparation."""
        durations = list(ms)

        def work() -> None:
            self.log.append(name)
            self.now += (durations.pop(0) if len(durations) > 1 else durations[0]) / 1e3

        def run(watch: Stopwatch) -> float:
            self.now += 1.0
            return watch(work)

        return run


def test_the_stopwatch_waits_for_the_device_before_and_after() -> None:
    order: list[str] = []

    def clock() -> float:
        order.append("clock")
        return float(len(order))

    ms = wall_stopwatch(lambda: order.append("wait"), clock)(lambda: order.append("work"))
    assert order == ["wait", "clock", "work", "wait", "clock"]
    assert ms == 3000.0  # the clock said 2 and 5 seconds


def test_constant_laps_give_their_own_time_and_ratio_and_no_noise() -> None:
    machine = FakeMachine()
    timing = compare(machine.lap("a", [2.1]), machine.lap("b", [4.2]), machine.watch, 5, 3)
    assert timing.value_ms == pytest.approx(2.1)
    assert timing.ratio == pytest.approx(0.5)
    assert timing.repeats == 5
    assert timing.laps == 24  # 50 ms of the faster one
    assert timing.spread_ms == pytest.approx(0.0, abs=1e-9)
    assert timing.noise == pytest.approx(0.0, abs=1e-9)


def test_blocks_alternate_and_turn_round() -> None:
    machine = FakeMachine()
    compare(machine.lap("a", [500.0]), machine.lap("b", [500.0]), machine.watch, 3, 1)
    # One warm-up each, then blocks of two laps: A B, B A, A B.
    assert "".join(machine.log) == "ab" + "aabb" + "bbaa" + "aabb"


def test_a_block_is_its_20th_percentile() -> None:
    machine = FakeMachine()
    # Sorted 1 2 3 4 5 6: the 20th percentile lies at position 0.2 * 5 = 1, which is 2.
    assert block(machine.lap("a", [6, 1, 5, 2, 4, 3]), machine.watch, 6) == pytest.approx(2.0)


def test_cold_laps_are_in_no_result() -> None:
    machine = FakeMachine()
    timing = compare(machine.lap("a", [900, 30, 10]), machine.lap("b", [10]), machine.watch, 5, 3)
    assert timing.model_ms == pytest.approx((10,) * 5)


def test_a_slow_model_is_warmed_up_once_and_timed_once_a_repeat() -> None:
    machine = FakeMachine()
    timing = compare(machine.lap("a", [4000]), machine.lap("b", [5000]), machine.watch, 5, 10)
    assert timing.laps == 1
    assert len(machine.log) == 2 + 5 * 2


def test_value_spread_ratio_and_noise_by_hand() -> None:
    timing = Timing(model_ms=(10, 12, 11, 30, 11), other_ms=(20, 20, 22, 50, 20), laps=3)
    assert timing.value_ms == 10
    # Median 11, deviations 1 1 0 19 0, their median 1.
    assert timing.spread_ms == pytest.approx(1.4826)
    # Ratios 0.5 0.6 0.5 0.6 0.55; deviations from 0.55: 0.05 0.05 0.05 0.05 0.
    assert timing.ratio == pytest.approx(0.55)
    assert timing.ratio_spread == pytest.approx(1.4826 * 0.05)
    # Mean 14.8, squared deviations 23.04 7.84 14.44 231.04 14.44 = 290.8, over 4 = 72.7.
    assert timing.noise == pytest.approx(72.7**0.5 / 14.8)


def test_one_disturbed_repeat_moves_neither_value_nor_ratio_nor_spread_but_is_noise() -> None:
    calm = Timing((10,) * 5, (20,) * 5, 3)
    disturbed = Timing((10, 10, 17, 10, 10), (20,) * 5, 3)
    assert disturbed.value_ms == calm.value_ms
    assert disturbed.ratio == calm.ratio
    assert disturbed.spread_ms == calm.spread_ms
    assert not is_noisy(calm.noise)
    assert is_noisy(disturbed.noise)


@given(st.floats(0.1, 10), st.lists(st.floats(1, 3), min_size=1, max_size=9), st.floats(0.1, 100))
def test_phases_that_slow_both_models_cancel_in_the_ratio(
    true_ratio: float, slowness: list[float], dense_ms: float
) -> None:
    timing = Timing(
        tuple(true_ratio * dense_ms * slow for slow in slowness),
        tuple(dense_ms * slow for slow in slowness),
        laps=3,
    )
    assert timing.ratio == pytest.approx(true_ratio)
    assert timing.ratio_noise == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("drift", [0.001, 0.02])
def test_a_machine_that_slowly_warms_up_favours_neither_model(drift: float) -> None:
    machine, done = FakeMachine(), [0]

    def lap(watch: Stopwatch) -> float:
        def work() -> None:
            done[0] += 1
            machine.now += 0.1 * (1 + drift * done[0])

        return watch(work)

    timing = compare(lap, lap, machine.watch, 6, 1)
    always_first = timing.ratios[0]
    assert always_first < 1
    assert abs(timing.ratio - 1) < abs(always_first - 1) / 3


@pytest.mark.parametrize(
    ("faster_ms", "slower_ms", "laps"),
    [
        (0.0, 0.0, 50_000),  # a clock too coarse to see it
        (0.5, 0.5, 100),
        (4.0, 4.0, 13),
        (20.0, 25.0, 3),
        (300.0, 330.0, 3),
        (300.0, 600.0, 1),
        (2000.0, 9000.0, 1),
    ],
)
def test_laps_fill_a_block_but_never_for_minutes(faster_ms: float, slower_ms: float, laps: int) -> None:
    assert laps_per_block(faster_ms, slower_ms) == laps


def test_units_divide_times_and_leave_ratios() -> None:
    timing = Timing((64.0, 96.0), (128.0, 128.0), 7)
    a_token = timing.per(32)
    assert a_token.model_ms == (2.0, 3.0)
    assert a_token.ratios == timing.ratios
    assert a_token.laps == 7


def test_a_single_repeat_has_no_spread_and_no_noise() -> None:
    timing = Timing((3.0,), (3.0,), 1)
    assert timing.spread_ms == timing.noise == 0.0


def test_the_robust_deviation_of_normal_numbers_is_their_standard_deviation() -> None:
    numbers = np.random.default_rng(0).normal(5, 2, 100_000)
    assert robust_std(numbers.tolist()) == pytest.approx(2, rel=0.02)


def test_garbage_is_not_collected_while_a_lap_runs_and_is_again_later() -> None:
    states: list[bool] = []

    def lap(watch: Stopwatch) -> float:
        states.append(gc.isenabled())
        return 600.0

    compare(lap, lap, wall_stopwatch(lambda: None), 2, 1)
    assert states == [True] * 2 + [False] * 4  # warm-up, then the blocks
    assert gc.isenabled()


def test_garbage_collection_returns_after_an_error() -> None:
    calls: list[int] = []

    def lap(watch: Stopwatch) -> float:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("out of memory")
        return 600.0

    with pytest.raises(RuntimeError):
        compare(lap, lap, wall_stopwatch(lambda: None), 2, 1)
    assert gc.isenabled()


def test_no_repeats_are_refused() -> None:
    machine = FakeMachine()
    with pytest.raises(ValueError, match="repeats is 0"):
        compare(machine.lap("a", [1]), machine.lap("b", [1]), machine.watch, 0, 1)


@pytest.mark.parametrize(("model", "other"), [((), ()), ((1.0,), ()), ((1.0,), (0.0,))])
def test_blocks_without_a_partner_or_a_time_are_refused(
    model: tuple[float, ...], other: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="pairs above 0 ms"):
        Timing(model, other, 1)
