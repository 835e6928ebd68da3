"""Energy over a whole stage, however long: the counter is read again and again, so that no wrap is missed."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pynvml

from hpo.measure.counters import Counter, open_counter
from hpo.measure.device import synchronize

_EVERY_S = 20.0
"""A processor's counter wraps after some minutes under load at the earliest."""


class Meter:
    """The energy between its making and the last `read`.

    *Measures*: everything the counter counts, idle power and other programs included: one GPU alone, or the
    packages of a processor. *Does not measure*: the host beside a GPU, memory, fans, power supplies.
    *Unit*: J.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._last = counter.read()
        self._millijoules = 0.0

    def read(self) -> None:
        """Add what was spent since the last reading."""
        now = self._counter.read()
        self._millijoules += self._counter.spent_mj(self._last, now)
        self._last = now

    @property
    def joules(self) -> float:
        return self._millijoules / 1e3


class StageMeter:
    """Counts the energy of stages on one device."""

    def __init__(
        self,
        device: str,
        *,
        alone: bool = True,
        open_counter: Callable[[str], AbstractContextManager[Counter | None]] = open_counter,
        every_s: float = _EVERY_S,
    ) -> None:
        """`alone`: whether no other worker of the study shares what the counter counts; else nothing is
        counted, for each would be charged with the energy of all."""
        self._device, self._alone, self._every_s = device, alone, every_s
        self._open_counter = open_counter
        self.joules: float | None = None
        """Of the last stage; None where it could not be counted from its beginning to its end."""

    @contextmanager
    def stage(self) -> Iterator[None]:
        """Count while the body runs, whether it fails or not; afterwards `joules` says what came of it."""
        self.joules = None
        if not self._alone:
            yield
            return
        with self._open_counter(self._device) as counter:
            meter = None if counter is None else _begun(counter)
            if meter is None:
                yield
                return
            over = threading.Event()
            failed: list[bool] = []
            reader = threading.Thread(
                target=_keep_reading, args=(meter, over, self._every_s, failed), daemon=True
            )
            reader.start()
            try:
                yield
            finally:
                over.set()
                reader.join()
                self.joules = None if failed else self._ended(meter)

    def _ended(self, meter: Meter) -> float | None:
        try:
            synchronize(self._device)  # what is still queued belongs to the stage
            meter.read()
        except (OSError, RuntimeError, pynvml.NVMLError):
            return None
        return meter.joules


def _begun(counter: Counter) -> Meter | None:
    try:
        return Meter(counter)
    except (OSError, pynvml.NVMLError):
        return None


def _keep_reading(meter: Meter, over: threading.Event, every_s: float, failed: list[bool]) -> None:
    while not over.wait(every_s):
        try:
            meter.read()
        except (OSError, pynvml.NVMLError):
            failed.append(True)
            return
