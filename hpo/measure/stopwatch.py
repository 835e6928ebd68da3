"""Timing two models side by side, and what to make of the laps. Knows no model and no torch device.

The protocol: a repeat is a block of laps of one model, then a block of the other; the order turns
round from repeat to repeat (A B, B A, A B, ...), so that a machine that slowly warms up favours
neither. A block counts as its 20th percentile, which ignores the laps that something else disturbed.

- The **value** is the lowest block: disturbance only ever adds time. With neighbours computing on
  every core it kept a coefficient of variation of 3 %, where means and medians had 10 to 20 %. It
  falls a little with more repeats, so compare values of equal `repeats`.
- The **ratio** to the other model is the median over repeats of the two blocks of one repeat, which
  were taken moments apart: slow phases that last for seconds cancel, which no statistic of one
  model's laps alone achieves.
- The **spread** is 1.4826 x the median absolute deviation over repeats: a standard deviation that one
  bad repeat cannot move. `noise`, the ordinary coefficient of variation, does move, and so tells
  that there was a bad repeat.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

Work = Callable[[], object]
Stopwatch = Callable[[Work], float]
"""Runs the work to its end and returns how long it took, in ms."""
Lap = Callable[[Stopwatch], float]
"""Prepares one run untimed, hands its work to the stopwatch, and returns the time, in ms."""

BLOCK_MS = 50.0
"""A block of laps takes at least this long, so that a timer's tick or one interrupt is nothing in it."""
SLOW_BLOCK_MS = 1000.0
"""Beyond this a block has no lap more than it must."""
_MIN_LAPS = 3
_PERCENTILE = 20
_NOISY = 0.05
_MAD_TO_STD = 1.4826


def wall_stopwatch(synchronize: Work, clock: Callable[[], float] = time.perf_counter) -> Stopwatch:
    """Return a stopwatch for what a user waits: wall time, with the device idle before and after.

    `clock` gives seconds; `synchronize` waits for the device.
    """

    def timed(work: Work) -> float:
        synchronize()
        start = clock()
        work()
        synchronize()
        return (clock() - start) * 1e3

    return timed


@dataclass(frozen=True)
class Timing:
    """Blocks of two models, one pair a repeat, each block its 20th percentile."""

    model_ms: tuple[float, ...]
    other_ms: tuple[float, ...]
    laps: int
    """Laps a block."""

    def __post_init__(self) -> None:
        if len(self.model_ms) != len(self.other_ms) or not self.model_ms or min(self.other_ms) <= 0:
            raise ValueError(f"blocks must come in pairs above 0 ms, not {self.model_ms} and {self.other_ms}")

    def per(self, units: int) -> "Timing":
        """Return the timing of one of `units` equal parts of the work."""
        model_ms, other_ms = (tuple(ms / units for ms in all_ms) for all_ms in (self.model_ms, self.other_ms))
        return Timing(model_ms, other_ms, self.laps)

    @property
    def repeats(self) -> int:
        return len(self.model_ms)

    @property
    def value_ms(self) -> float:
        return min(self.model_ms)

    @property
    def spread_ms(self) -> float:
        return robust_std(self.model_ms)

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(a / b for a, b in zip(self.model_ms, self.other_ms, strict=True))

    @property
    def ratio(self) -> float:
        return float(np.median(self.ratios))

    @property
    def ratio_spread(self) -> float:
        return robust_std(self.ratios)

    @property
    def noise(self) -> float:
        """Coefficient of variation of the model's blocks."""
        return coefficient_of_variation(self.model_ms)

    @property
    def ratio_noise(self) -> float:
        """Coefficient of variation of the ratios."""
        return coefficient_of_variation(self.ratios)


def compare(model: Lap, other: Lap, watch: Stopwatch, repeats: int, warm_ups: int) -> Timing:
    """Time two models by the protocol above.

    Laps a block follow from the warm-up: enough for `BLOCK_MS` of the faster model, at least 3
    where that keeps the slower one within `SLOW_BLOCK_MS`, and at least 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, at least 1 is needed")
    first, second = (_warm_up(lap, watch, warm_ups) for lap in (model, other))
    laps = laps_per_block(min(first, second), max(first, second))
    model_ms: list[float] = []
    other_ms: list[float] = []
    with _no_garbage_collection():
        for repeat in range(repeats):
            blocks = [(model, model_ms), (other, other_ms)]
            for lap, results in blocks if repeat % 2 == 0 else reversed(blocks):
                results.append(block(lap, watch, laps))
    return Timing(tuple(model_ms), tuple(other_ms), laps)


def block(lap: Lap, watch: Stopwatch, laps: int) -> float:
    """Return the 20th percentile of `laps` laps, in ms."""
    return float(np.percentile([lap(watch) for _ in range(laps)], _PERCENTILE))


def laps_per_block(faster_ms: float, slower_ms: float) -> int:
    """Return how many laps a block has, from the two models' times of one lap."""
    wanted = max(_MIN_LAPS, math.ceil(BLOCK_MS / max(faster_ms, 1e-3)))
    affordable = int(SLOW_BLOCK_MS / max(slower_ms, 1e-3))
    return max(1, min(wanted, affordable))


def is_noisy(noise: float) -> bool:
    """Whether a coefficient of variation is above 5 %: the machine was not quiet."""
    return noise > _NOISY


def coefficient_of_variation(values: Sequence[float]) -> float:
    """Return the sample standard deviation over the mean; 0 for a single value."""
    return float(np.std(values, ddof=1) / np.mean(values)) if len(values) > 1 else 0.0


def robust_std(values: Sequence[float]) -> float:
    """Return 1.4826 x the median absolute deviation, the standard deviation if values are normal."""
    centre = np.median(values)
    return float(_MAD_TO_STD * np.median(np.abs(np.asarray(values) - centre)))


def _warm_up(lap: Lap, watch: Stopwatch, warm_ups: int) -> float:
    """Run up to `warm_ups` laps, no more than fit `SLOW_BLOCK_MS` after the first; return the fastest."""
    laps = [lap(watch)]
    while len(laps) < warm_ups and sum(laps) < SLOW_BLOCK_MS:
        laps.append(lap(watch))
    return min(laps)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect now and not meanwhile: a collection costs some ms, in whichever lap it falls."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
