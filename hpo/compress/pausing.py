"""Healing in two parts: a short one to judge a model by, and the rest, which a poor one need not get.

A healing that pauses is a generator. Between two steps it yields what it has come to; resumed, it goes on as
if it had not been looked at, and closed, it is given up.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TypeVar

from hpo.compress.method import Checked, Healer, Healing, Patient, PausableHealer
from hpo.compress.plan import HealPlan

SHORT_STEPS = 25
"""Steps after which healing pauses.

The same for all, since losses compare only after equally much healing. Not none, since the better of two
models before healing is often the worse one after it. And no more than the shortest healing in the spaces
that are shipped, whose longer ones take 50 steps and more, so that giving up saves at least half.
"""

_Result = TypeVar("_Result")


def healing_of(healer: Healer, patient: Patient, plan: HealPlan, seed: int) -> Healing:
    """Return a healer's healing in parts; of one that cannot pause, its healing in one.

    Nothing is done before the first `next`; then it raises what `Healer.heal` raises.
    """
    if isinstance(healer, PausableHealer):
        return healer.healing(patient, plan, seed)
    return _in_one(healer, patient, plan, seed)


def _in_one(healer: Healer, patient: Patient, plan: HealPlan, seed: int) -> Healing:
    yield from ()  # what makes it a generator
    return healer.heal(patient, plan, seed)


def run_out(run: Generator[object, None, _Result]) -> _Result:
    """Drive what may pause to its end, whatever it yields; return what it returns."""
    while True:
        try:
            next(run)
        except StopIteration as end:
            result: _Result = end.value
            return result


def pausing_once(
    run: Generator[object, None, _Result], steps: int, look: Callable[[], Checked]
) -> Generator[Checked, None, _Result]:
    """Drive what yields after each step; after so many pause once, and yield what there is to see.

    A run that ends earlier does not pause. Closed at the pause, it closes the run.
    """
    taken = 0
    with closing(run):
        while True:
            try:
                next(run)
            except StopIteration as end:
                result: _Result = end.value
                return result
            taken += 1
            if taken == steps:
                yield look()
