"""Writes down a healing's losses while it trains. What it writes is there anyway: it evaluates nothing."""

import math

from hpo.compress.snapshot import Snapshot
from hpo.healing_curve import HealingCurve, Point

MOST_POINTS = 100
"""Of each kind in a curve, however long a healing takes."""


class CurveRecorder:
    """Counts steps, and keeps losses at a bounded number of them."""

    def __init__(self, loss: str, steps: int) -> None:
        """`loss` is what training lowers, `steps` how many are planned over all phases."""
        self._loss, self._planned = loss, steps
        self._stride = max(math.ceil(steps / MOST_POINTS), 1)
        self._steps = 0
        self._since: list[float] = []
        self._trained: list[Point] = []
        self._checked: list[Point] = []

    def step(self, loss: float) -> None:
        """Note the training loss of one more step."""
        self._steps += 1
        self._since.append(loss)
        if self._steps % self._stride == 0 or self._steps == self._planned:
            self._trained.append((self._steps, _short(sum(self._since) / len(self._since))))
            self._since = []

    def check(self, loss: float) -> None:
        """Note nats per token of the text held out, at the step that was taken last. A broken model's are
        left out, and those that come too soon after the ones before."""
        if self._checked and self._steps - self._checked[-1][0] < self._stride:
            return
        self._keep(loss)

    def mark(self, loss: float) -> None:
        """As `check`, but always kept: for the few that say how a healing begins, pauses and ends."""
        if math.isfinite(loss) and self._checked and self._checked[-1][0] == self._steps:
            self._checked.pop()
        self._keep(loss)

    def snapshot(self) -> Snapshot:
        """Return what was noted so far, for a healing that is taken up again."""
        noted = {"steps": self._steps, "since": list(self._since)}
        return Snapshot(facts={**noted, "trained": list(self._trained), "checked": list(self._checked)})

    def take_up(self, snapshot: Snapshot) -> None:
        """Go on from there.

        Raises:
            Misfit: it tells of something else.
        """
        self._steps, self._since = snapshot.fact("steps"), list(snapshot.fact("since"))
        self._trained = [(step, loss) for step, loss in snapshot.fact("trained")]
        self._checked = [(step, loss) for step, loss in snapshot.fact("checked")]

    def _keep(self, loss: float) -> None:
        if math.isfinite(loss):
            self._checked.append((self._steps, _short(loss)))

    @property
    def curve(self) -> HealingCurve:
        """What was noted so far."""
        return HealingCurve(self._loss, tuple(self._trained), tuple(self._checked))


def _short(loss: float) -> float:
    """Return a loss in as many digits as a figure shows."""
    return float(f"{loss:.6g}")
