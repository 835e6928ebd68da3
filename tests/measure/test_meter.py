"""Energy over a stage: read at both ends and in between, and never told where it was not counted."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from hpo.measure.counters import Counter
from hpo.measure.meter import Meter, StageMeter


class Wrapping:
    """Goes up by 30 J (in µJ) at each reading and wraps at 100 J; one wrap between readings is undone."""

    name = "rapl"

    def __init__(self, fails_at: int | None = None) -> None:
        self.readings = 0
        self._fails_at = fails_at

    def read(self) -> tuple[int, ...]:
        if self.readings == self._fails_at:
            raise OSError("gone")
        self.readings += 1
        return (self.readings * 30_000_000 % 100_000_000,)

    def spent_mj(self, before: Sequence[int], after: Sequence[int]) -> float:
        return (after[0] - before[0]) % 100_000_000 / 1e3


def meter_of(counter: Counter | None, **given: float | bool) -> StageMeter:
    @contextmanager
    def opened(device: str) -> Iterator[Counter | None]:
        yield counter

    return StageMeter("cpu", open_counter=opened, **given)  # type: ignore[arg-type]  # as given


def test_a_meter_adds_up_what_is_spent_between_readings_over_wraps() -> None:
    meter = Meter(Wrapping())
    for _ in range(10):
        meter.read()
    assert meter.joules == 300.0


def test_a_stage_has_spent_what_the_counter_rose_by() -> None:
    meter = meter_of(Wrapping())
    with meter.stage():
        pass
    assert meter.joules == 30.0


def test_a_long_stage_is_read_in_between_so_that_no_wrap_is_missed() -> None:
    counter = Wrapping()
    meter = meter_of(counter, every_s=0.001)
    before = set(threading.enumerate())
    with meter.stage():
        while counter.readings < 12:
            time.sleep(0.001)
    assert meter.joules == 30.0 * (counter.readings - 1)
    assert meter.joules > 300
    assert set(threading.enumerate()) <= before


def test_a_stage_that_fails_has_spent_its_energy_too() -> None:
    meter = meter_of(Wrapping())
    with pytest.raises(ValueError, match="no"), meter.stage():
        raise ValueError("no")
    assert meter.joules == 30.0


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_counter_that_fails_at_any_reading_leaves_the_stage_uncounted(fails_at: int) -> None:
    counter = Wrapping(fails_at)
    meter = meter_of(counter, every_s=0.001 if fails_at == 1 else 20.0)
    with meter.stage():
        time.sleep(0.02)
    if fails_at == 2:
        assert meter.joules == 30.0
        with meter.stage():
            pass
    assert meter.joules is None


def test_without_a_counter_or_beside_other_workers_nothing_is_counted() -> None:
    counter = Wrapping()
    for meter in (meter_of(None), meter_of(counter, alone=False)):
        with meter.stage():
            pass
        assert meter.joules is None
    assert counter.readings == 0


def test_one_stage_says_nothing_of_the_next() -> None:
    counter = Wrapping(fails_at=2)
    meter = meter_of(counter)
    seen = []
    for _ in range(2):
        with meter.stage():
            seen.append(meter.joules)
    assert seen == [None, None]
