"""How long asking takes, how soon workers get free, and so how many proposals to have ready."""

import math
from collections import deque
from collections.abc import Sequence
from itertools import combinations
from statistics import median

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int_]

CHEAP = 0.02
"""Share of a worker's time that asking may cost before it is done ahead."""

_REMEMBERED = 6
"""Asks that are remembered: they get slower as a study grows."""

_UNTIMED_S = 1.0
"""What an ask is taken to last, in seconds, until one has been timed."""

_LEAST_BATCH = 8
"""Candidates that an ask may always be for; also the most until one has been timed."""

_LOOKED_AT = 64
"""Numbers of proposals that are considered, however many workers there are."""

_OVERHEAD = 0.1
"""Share of an ask that may go into what it does once, whatever the number of candidates."""


class Pace:
    """A running estimate of what an ask costs, and the rule of asking ahead.

    An ask of k candidates is taken to last ``fixed + k * each`` seconds: the median slope between any two
    of the last asks and the median rest (Theil 1950; Sen 1968), which a single odd one cannot move.

    **The rule.** A proposal made ahead does not know what is finished meanwhile, and that costs quality.
    So as long as an ask, for as many candidates as slots get free while it runs, lasts less than `CHEAP`
    (2 %) of a trial, nothing is made ahead: a free slot waits, and its proposal knows all. Else as many
    are kept ready as slots are expected to be freed until the answer after next: those at hand are for
    the slots freed during one ask, those asked for are for the slots freed during the one that follows.
    """

    def __init__(self) -> None:
        self._asks: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._warm = False

    def note(self, count: int, seconds: float) -> None:
        """Remember how long an ask of `count` candidates took; not the first, which imports as well."""
        if self._warm and count > 0:
            self._asks.append((count, seconds))
        self._warm = True

    def _line(self) -> tuple[float, float]:
        """Return the seconds of an ask that are fixed, and those of each candidate."""
        if not self._asks:
            return _UNTIMED_S, 0.0
        pairs = combinations(self._asks, 2)
        slopes = [(t - s) / (k - j) for (j, s), (k, t) in pairs if j != k]
        # Asks of one size do not tell the two apart: a fifth is fixed, so that the next may be larger.
        each = median(slopes) if slopes else 0.8 * median(s / k for k, s in self._asks)
        each = min(max(each, 0.0), median(s / k for k, s in self._asks))
        return max(median(s - each * k for k, s in self._asks), 0.0), each

    def seconds(self, count: int) -> float:
        """Return how long an ask of `count` candidates is expected to take."""
        fixed, each = self._line()
        return fixed + count * each

    @property
    def batch(self) -> int | None:
        """How many candidates an ask is for at most: so many that what it does once hardly counts.

        More of them would only keep the first waiting for the last. None if there is no such number.
        """
        if not self._asks:
            return _LEAST_BATCH
        fixed, each = self._line()
        if each * 1e6 <= fixed:
            return None
        return max(math.ceil(fixed / each * (1 - _OVERHEAD) / _OVERHEAD), _LEAST_BATCH)

    def cheap(self, trial_s: float, workers: int) -> bool:
        """Whether asking when a slot is free costs little: less than `CHEAP` of a trial of `trial_s` seconds.

        The ask is for as many candidates as slots get free while it runs, if trials end evenly in time.
        """
        fixed, each = self._line()
        rate = workers / max(trial_s, 1e-9)
        # count = rate * (fixed + count * each); asks that never catch up are for all workers at once
        during = rate * fixed / (1 - rate * each) if rate * each < 1 else float(workers)
        count = min(max(math.ceil(during), 1), workers, self.batch or workers)
        return self.seconds(count) <= CHEAP * trial_s

    def ahead(self, durations_s: Sequence[float], elapsed_s: Sequence[float]) -> int:
        """Return how many proposals to have ready beyond the slots that are free, where asking is not cheap.

        The greatest number that would not all be asked for in time if it were left for later.

        Args:
            durations_s: seconds that trials kept a worker, of the last ones that are over; at least one.
            elapsed_s: seconds since each running trial was started; at least one.
        """
        # What is proposed before any ask was timed knows of hardly a result: no more than to begin with.
        most = len(elapsed_s) if self._asks else min(len(elapsed_s), _LEAST_BATCH)
        counts = np.unique(np.linspace(1, most, _LOOKED_AT).round().astype(int))
        fixed, each = self._line()
        asks = np.ceil(counts / (self.batch or len(elapsed_s)))
        able = freed(durations_s, elapsed_s, 2 * (asks * fixed + counts * each)) >= counts
        return int(counts[able].max(initial=0))


def freed(durations_s: Sequence[float], elapsed_s: Sequence[float], within_s: Array) -> Counts:
    """Return how many of the running trials may be over within so many seconds, for each of (H,) of them.

    Each lasts as long as one of those before it that lasted longer than it has; one that has outlasted
    them all may end at any moment. The expected number and one standard deviation, rounded.
    """
    durations = np.sort(np.asarray(durations_s, dtype=float))
    elapsed = np.asarray(elapsed_s, dtype=float)
    outlasted = np.searchsorted(durations, elapsed, side="right")
    over = np.searchsorted(durations, elapsed + within_s[:, None], side="right")
    left = len(durations) - outlasted
    chances = np.where(left > 0, (over - outlasted) / np.maximum(left, 1), 1.0)
    spread = np.sqrt((chances * (1 - chances)).sum(axis=1))
    found: Counts = np.floor(chances.sum(axis=1) + spread + 0.5).astype(int)
    return found
