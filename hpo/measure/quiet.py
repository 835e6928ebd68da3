"""One measuring lock a machine, so that two workers do not spoil each other's timings.

A worker computes in short chunks (a healing step, an evaluation batch) and now and then takes a
timing. Chunks may run side by side; a timing wants the machine to itself::

    node = QuietNode()
    with node.working():      # shared: around one short chunk
        ...
    with node.measuring():    # exclusive: waits for running chunks, holds new ones back
        ...

It is a readers-writer lock with a turnstile, on two files under the system's temporary directory:

    file   a chunk takes it              a timing takes it
    gate   shared, to get in; lets go    exclusive, first, and keeps it
    work   shared, for its length        exclusive, for its length

A timing that waits holds the gate, so chunks that come later queue behind it: however many workers
compute, it waits no longer than the chunks already running. The locks are the kernel's
(``flock``) and go with the process that holds them, also after ``kill -9``.

What it does not do: keep anybody else's processes quiet, reach across machines or users (each user
has a directory of their own), or interrupt a chunk. Where a process is killed inside a block, a child
that it forked there keeps the lock until the child ends too.
"""

import fcntl
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.errors import HpoError


class QuietNode:
    """The measuring lock of this machine and user. Processes with the same `directory` share it.

    Nesting is free within a thread: `working` inside either block, and `measuring` inside
    `measuring`, take nothing further. `measuring` inside `working` is refused, since two workers
    that did so would wait for each other for ever.
    """

    def __init__(self, directory: Path | None = None) -> None:
        """`directory` is made on first use, for this user alone; by default it is a temporary one."""
        self.directory = directory or Path(tempfile.gettempdir()) / f"compression-hpo-{os.getuid()}"

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold the machine together with other workers, for one short chunk of compute.

        Raises:
            HpoError: the lock's directory cannot be used.
        """
        if self.directory in _held.modes:
            yield
            return
        with self._open("gate") as gate, self._open("work") as work:
            with _locked(gate, fcntl.LOCK_SH):
                fcntl.flock(work, fcntl.LOCK_SH)
            with _unlocking(work), self._holding("working"):
                yield

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the machine alone: running chunks end first, new ones and other timings wait.

        Raises:
            HpoError: called inside `working`, or the lock's directory cannot be used.
        """
        if _held.modes.get(self.directory) == "working":
            raise HpoError(
                "measuring() was called inside working()", "end the chunk of work first, then take the timing"
            )
        if self.directory in _held.modes:
            yield
            return
        with (
            self._open("gate") as gate,
            self._open("work") as work,
            _locked(gate, fcntl.LOCK_EX),
            _locked(work, fcntl.LOCK_EX),
            self._holding("measuring"),
        ):
            yield

    @contextmanager
    def _holding(self, mode: str) -> Iterator[None]:
        _held.modes[self.directory] = mode
        try:
            yield
        finally:
            del _held.modes[self.directory]

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        # Opened anew each time: flock belongs to an open file, so threads must not share one.
        self._make_directory()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            handle = os.open(self.directory / name, flags, 0o600)
        except OSError as error:
            raise _unusable(self.directory, str(error)) from error
        try:
            yield handle
        finally:
            os.close(handle)

    def _make_directory(self) -> None:
        """Make the directory, or check that the one found is ours alone: /tmp is everybody's."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.directory.lstat()
        except OSError as error:
            raise _unusable(self.directory, str(error)) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise _unusable(self.directory, "it is not a directory of this user")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise _unusable(self.directory, f"others may enter it (mode {stat.S_IMODE(found.st_mode):o})")


class _Held(threading.local):
    """What this thread holds, by directory: ``working`` or ``measuring``."""

    def __init__(self) -> None:
        self.modes: dict[Path, str] = {}


_held = _Held()


@contextmanager
def _locked(handle: int, kind: int) -> Iterator[None]:
    fcntl.flock(handle, kind)
    with _unlocking(handle):
        yield


@contextmanager
def _unlocking(handle: int) -> Iterator[None]:
    """Let go explicitly: closing is not enough where a forked child still has the file open."""
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _unusable(directory: Path, why: str) -> HpoError:
    return HpoError(
        f"the measuring lock at {directory} cannot be used: {why}",
        "it must be a directory of yours with mode 700; remove it, or point TMPDIR elsewhere",
    )
