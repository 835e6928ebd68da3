"""What more hours of a search would buy: the growth of its last trials, carried on.

The growth is `hpo.search.plateau`'s: gains are Poisson events in the time that workers work, and the limits
of its mean are those of [Fay1997]_ there. The two of them, at 95 % each, make an interval of 90 % for what so
many hours add **on average**; a single run of them may bring nothing, or more. What is carried on is a
straight line, cut off where the box is full.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dashboards.hypervolume import Against, Band
from dashboards.remaining import Remaining
from hpo.format import count_text, duration_text, number_text, percent_text
from hpo.search.plateau import Growth, gain_bound, growth, progress_of
from hpo.store.spending import Spent
from hpo.study import Study
from hpo.trial import Trial

CONFIDENCE = 0.95
"""Of either end, which leaves 90 % between them."""

FEWEST = 5
"""Searched trials below which growth is not judged; the rule that ends a study asks for as many."""

_WINDOW = 20
_TIMES = (1, 2, 5, 10)
_HOURS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_FAR = 10.0
"""Hours in round numbers are offered up to so many times what the trials judged took, and down to a part."""

ASSUMPTION = (
    "Assumed: gains come no more often and no larger than over the trials judged. Gains mostly decline as a "
    "search goes on, so the past overstates the future, and the more so the farther one looks. "
    "A breakthrough of a new kind is not foreseen."
)


@dataclass(frozen=True)
class Basis:
    """What an outlook stands on: the last searched trials, what they brought and what they took."""

    share: float
    """Of the box that the front covers now."""
    growth: Growth
    low: float
    """Share of the box that an hour brings at least, on average, at `CONFIDENCE`; `growth.bound`: at most."""
    gpus: float
    """GPUs that a worker holds, of which hours are counted; 0 counts hours of workers."""
    clock: float | None
    """Seconds on the wall that an hour of work takes; None while not known."""
    joules: float | None
    """Counted in an hour of work; None where there is no counter."""

    @property
    def rate(self) -> float:
        """Share of the box that an hour of work brought."""
        return self.growth.gain / self.growth.hours

    @property
    def pace(self) -> float:
        """Trials in an hour of work."""
        return self.growth.trials / self.growth.hours

    def work(self, hours: float) -> str:
        """Return an amount of work in words."""
        if self.gpus:
            return f"{number_text(hours, 3)} GPU-hours"
        return f"{duration_text(3600 * hours)} of work"


@dataclass(frozen=True)
class Outlook:
    """What so many hours of work would add to the front's share of the box, on average."""

    basis: Basis
    hours: float
    low: float
    expected: float
    high: float

    @property
    def trials(self) -> float:
        return self.hours * self.basis.pace

    @property
    def seconds(self) -> float | None:
        """By the clock on the wall, at the pace so far; None while that is not known."""
        return None if self.basis.clock is None else self.hours * self.basis.clock

    def band(self, against: Against, start: float) -> Band | None:
        """Return it behind a curve that ends at `start` on an axis; None where its length is not known."""
        length = {"trials": self.trials, "seconds": self.seconds, "hours": self.hours}[against]
        if length is None:
            return None
        now = self.basis.share
        name = f"{self.basis.work(self.hours)} more"
        return Band(start + length, now + self.low, now + self.expected, now + self.high, name)

    @property
    def words(self) -> str:
        """The outlook as a sentence."""
        now, judged = self.basis.share, self.basis.growth
        seconds = self.seconds
        clock = "" if seconds is None else f", about {duration_text(seconds)} by the clock"
        trials = count_text(max(round(self.trials), 1), "trial")
        full = " (the box is full then)" if now + self.high >= 1 else ""
        return (
            f"{self.basis.work(self.hours)} more (about {trials}{clock}) would add "
            f"{share_text(self.expected)} of the box on average, with 90 % confidence between "
            f"{share_text(self.low)} and {share_text(self.high)}: from {percent_text(now)} to about "
            f"{percent_text(now + self.expected)}{full}. Judged by the last {judged.trials} searched trials, "
            f"which took {self.basis.work(judged.hours)} and added {share_text(judged.gain)}."
        )


def share_text(share: float) -> str:
    """Return a share in percent, with two digits however small it is."""
    return "0 %" if share == 0 else f"{number_text(100 * share, 2)} %"


@dataclass(frozen=True)
class NoOutlook:
    """Nothing can be said yet."""

    why: str


def basis_of(study: Study, trials: Sequence[Trial], spent: Spent) -> Basis | NoOutlook:
    """Return what an outlook of a study can stand on: as many of its last trials as its rule of ending
    looks at, or 20, or all since the start design where these are fewer."""
    progress = progress_of(study.objectives, trials, study.search.initial, spent.gpus or 1.0)
    if progress is None:
        return NoOutlook("What more hours would buy can be said once the dense model has been measured.")
    searched = np.flatnonzero(progress.searched)
    if len(searched) < FEWEST:
        return NoOutlook(
            f"What more hours would buy can be said once {FEWEST} trials after the start design are over; "
            f"so far there are {len(searched)}."
        )
    window = min(study.search.plateau.trials if study.search.plateau else _WINDOW, len(searched))
    found = growth(progress, window, CONFIDENCE)
    if found is None:
        return NoOutlook(
            "What more hours would buy cannot be said: no trial has been better than the reference point "
            "yet, or the last ones took no time."
        )
    gains = np.array(progress.gains)
    recent = gains[searched[-window:]]
    hours = spent.work.seconds / 3600 * (spent.gpus or 1.0)
    return Basis(
        share=min(float(gains.sum()), 1.0),
        growth=found,
        low=gain_bound(recent, 0.0, 1 - CONFIDENCE) / found.hours if recent.any() else 0.0,
        gpus=spent.gpus,
        clock=3600 * spent.hours / hours if hours and spent.hours else None,
        joules=spent.work.joules / hours if hours and spent.work.joules else None,
    )


def outlook(basis: Basis, hours: float) -> Outlook:
    """Return what so many hours of work would buy.

    Raises:
        ValueError: the hours are negative.
    """
    if hours < 0:
        raise ValueError(f"{hours:g} hours lie in the past")
    room = 1.0 - basis.share
    low, expected, high = (
        min(hours * rate, room) for rate in (basis.low, basis.rate, max(basis.growth.bound, basis.rate))
    )
    return Outlook(basis, hours, min(low, expected), expected, high)


def hours_left(basis: Basis, left: Remaining) -> float | None:
    """Return the hours of work after which the first budget ends, at the pace so far; None without one."""
    found = [
        None if left.trials is None else left.trials / basis.pace,
        None if left.seconds is None or not basis.clock else left.seconds / basis.clock,
        left.gpu_hours,
        None if left.joules is None or not basis.joules else left.joules / basis.joules,
    ]
    return min((hours for hours in found if hours is not None), default=None)


def amounts(basis: Basis, left: Remaining) -> dict[str, tuple[str, float]]:
    """Return the amounts of work that may be asked for: key -> words, hours."""
    judged = basis.growth
    found = {
        f"times-{n}": (
            f"{n} × the last {judged.trials} trials: {basis.work(n * judged.hours)}",
            n * judged.hours,
        )
        for n in _TIMES
    }
    rest = hours_left(basis, left)
    if rest:
        found["rest"] = (f"the rest of the budget: {basis.work(rest)}", rest)
    noun = "GPU-hour" if basis.gpus else "hour"
    more = "" if basis.gpus else " of work"
    near = [n for n in _HOURS if judged.hours / _FAR <= n <= judged.hours * _FAR]
    return found | {f"hours-{n}": (count_text(n, noun) + more, float(n)) for n in near}
