"""The front of a study on one of the devices that it was measured on."""

import time
from collections.abc import Sequence

import numpy as np

from hpo.errors import UsageError
from hpo.problem import frame, losses, on_front
from hpo.store.by_device import MeasuredDevice
from hpo.store.values import Front
from hpo.trial import Objective, Trial


def named(devices: Sequence[MeasuredDevice], given: str) -> MeasuredDevice:
    """Return the device whose fingerprint has these letters in it.

    Raises:
        UsageError: none has, or several have.
    """
    found = [device for device in devices if given.lower() in device.name.lower()]
    if len(found) == 1:
        return found[0]
    there = "; ".join(f"{device.name} ({device.trials} trials)" for device in devices) or "none so far"
    what = f"{len(found)} devices have" if found else "no device has"
    raise UsageError(f"{what} {given!r} in its name", f"the study was measured on: {there}")


def front_of(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Front:
    """Return the front of trials as they stand on one device (`Store.trials_on`); stored nowhere."""
    mask = on_front(objectives, trials)
    members = tuple(trial.number for trial, on in zip(trials, mask, strict=True) if on)
    box = frame(objectives, trials)
    return Front(
        revision=0,
        members=members,
        hypervolume=None
        if box is None
        else box.hypervolume(losses(objectives, trials)[np.flatnonzero(mask)]),
        reference=() if box is None else box.reference,
        ideal=() if box is None else box.ideal,
        trials=len(trials),
        at=time.time(),
    )
