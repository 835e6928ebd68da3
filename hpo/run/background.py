"""One call at a time in a thread of its own, for what would keep a loop waiting."""

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakSet

Answer = TypeVar("Answer")

_PATIENCE_S = 10.0
"""How long the interpreter's exit waits for calls that nobody waits for any more."""

_SWITCH_S = 0.0005
"""After how many seconds a thread that computes lets others in while a call runs. A loop that talks to a
database lets go of the interpreter many times a transaction, and waits so long each time to have it back:
Python's 5 ms make a trial's few transactions last a tenth of a second."""

_threads: WeakSet[threading.Thread] = WeakSet()


@atexit.register
def _settle() -> None:
    """Let calls end that were left behind: a thread cut off within native code may abort the exit."""
    deadline = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(KeyboardInterrupt):  # somebody does not want to wait
        for thread in list(_threads):
            thread.join(max(deadline - time.monotonic(), 0.0))


class _Courtesy:
    """Lets other threads in sooner for as long as any call runs; a call that was left behind may overlap with
    the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if self._running == 0:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self._before, _SWITCH_S))
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if self._running == 0:
                sys.setswitchinterval(self._before)


_courtesy = _Courtesy()


class Background(Generic[Answer]):
    """Runs one call at a time. A call cannot be ended; leave it behind, and its answer is never heard.

    Args:
        apart: run calls in a thread; otherwise `begin` runs them itself, and returns when they are done.
    """

    def __init__(self, apart: bool) -> None:
        self._apart = apart
        self._done = threading.Event()
        self._under_way = False
        self._answer: list[Answer] = []
        self._error: BaseException | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing was begun whose answer is not collected."""
        return not self._under_way

    @property
    def busy(self) -> bool:
        """Whether a call is running at this moment."""
        return self._under_way and not self._done.is_set()

    def begin(self, call: Callable[[], Answer]) -> None:
        """Begin a call.

        Raises:
            RuntimeError: the answer of the one before is not collected.
        """
        if self._under_way:
            raise RuntimeError("one call at a time: collect the answer of the last one first")
        self._under_way = True
        self._done.clear()
        if self._apart:
            thread = threading.Thread(target=self._run_apart, args=(call,), name="asking", daemon=True)
            _threads.add(thread)
            thread.start()
        else:
            self._run(call)

    def _run_apart(self, call: Callable[[], Answer]) -> None:
        with _courtesy:
            self._run(call)

    def _run(self, call: Callable[[], Answer]) -> None:
        try:
            self._answer = [call()]
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def wait(self, timeout_s: float) -> None:
        """Return when the call is done, or after `timeout_s` seconds; at once if there is none."""
        if self._under_way:
            self._done.wait(timeout_s)

    def collect(self) -> Answer | None:
        """Return what the call has returned, once; None while it runs and when there was none.

        Raises:
            BaseException: whatever the call has raised.
        """
        if not self._under_way or not self._done.is_set():
            return None
        self._under_way = False
        error, self._error = self._error, None
        if error is not None:
            raise error
        (answer,), self._answer = self._answer, []
        return answer
