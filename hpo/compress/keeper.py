"""Keeps a healing's checkpoints, so that one that is cut short goes on where it was.

A checkpoint lies at ``<cache>/checkpoints/<model and text>/<content>.safetensors``, or in the directory that
machines share (`hpo.models.shared_files`) in the place of the cache. It is written now and
then, where a healing pauses, at its end and when the process has to go. It stays until it is removed: what
comes after the healing may be cut short as well. What is left behind makes room by `hpo.compress.room`.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import hpo
from hpo.compress import checkpoint
from hpo.compress.room import Entry, most_bytes, trim
from hpo.compress.snapshot import Misfit, Snapshot
from hpo.errors import HpoError
from hpo.measure.quiet import QuietNode
from hpo.models.cache import cache_dir
from hpo.models.shared_files import shared_directory

EVERY_S = 60.0
"""Seconds between checkpoints."""
_SHARE = 0.05
"""Of a healing's time that may go into writing them; large ones are written less often."""

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class Preempted(HpoError):
    """The process has to go; what was under way can be taken up again elsewhere."""


def _stays() -> bool:
    return False


class Keeper:
    """Of one healing at a time. Until it is told where, it keeps nothing."""

    def __init__(
        self, leaving: Callable[[], bool] = _stays, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`leaving` says whether the process has to go; asked after every step."""
        self._leaving, self._clock = leaving, clock
        self._path: Path | None = None
        self._subject = ""
        self._due = self._clock() + EVERY_S

    def at(self, key: str, content: str) -> None:
        """Keep from now on what `content` names, of the model and text named `key`."""
        subject = f"{content}|{hpo.__version__}"
        name = hashlib.sha256(subject.encode()).hexdigest()[:32]
        # Where machines share a directory, a trial that goes on at another one finds it there.
        place = shared_directory() or cache_dir()
        self._path, self._subject = place / "checkpoints" / key / f"{name}.safetensors", subject
        self._due = self._clock() + EVERY_S

    def beside(self, content: str) -> "Keeper":
        """Return a keeper of something else about the same model and text."""
        other = Keeper(self._leaving, self._clock)
        if self._path is not None:
            other.at(self._path.parent.name, content)
        return other

    def take_up(self, take_up: Callable[[Snapshot], None]) -> bool:
        """Hand over what was kept; return whether it was taken up. What does not fit is ignored."""
        if self._path is None:
            return False
        try:
            found = checkpoint.read(self._path, self._subject)
            if found is None:
                return False
            take_up(found)
        except (Misfit, OSError) as error:
            _log.warning("the healing begins again, for its checkpoint cannot be used: %s", error)
            return False
        _log.info("the healing goes on from its checkpoint %s", self._path)
        return True

    def watch(
        self, run: Generator[int, None, _Result], snapshot: Callable[[], Snapshot]
    ) -> Generator[int, None, _Result]:
        """Drive what yields after each step, and keep a snapshot where one is due.

        Raises:
            Preempted: the process has to go; a snapshot of the last step is kept.
        """
        with closing(run):
            while True:
                try:
                    step = next(run)
                except StopIteration as end:
                    result: _Result = end.value
                    return result
                if self._leaving():
                    self._keep(snapshot)  # at once, whatever is timed nearby
                    raise Preempted(f"the worker was told to go at step {step} of a healing")
                if self._clock() >= self._due:
                    self.keep(snapshot)
                yield step

    def keep(self, snapshot: Callable[[], Snapshot]) -> None:
        """Write a checkpoint. A disk that is full is warned of: the healing goes on without."""
        if self._path is not None:
            with QuietNode().working():
                self._keep(snapshot)

    def _keep(self, snapshot: Callable[[], Snapshot]) -> None:
        if self._path is None or not (most := most_bytes()):
            return
        begun = self._clock()
        try:
            checkpoint.write(self._path, snapshot(), self._subject)
        except OSError as error:
            _log.warning(
                "a healing goes on without a checkpoint, for %s cannot be written: %s", self._path, error
            )
        took = self._clock() - begun
        self._due = self._clock() + max(EVERY_S, took / _SHARE)
        trim(_entries(self._path.parent.parent), most)

    def remove(self) -> None:
        """Remove the checkpoint, which nobody will take up."""
        if self._path is None:
            return
        with suppress(OSError):
            checkpoint.sweep(self._path)
            self._path.unlink(missing_ok=True)
        self._path = None


def _entries(parent: Path) -> Iterator[Entry]:
    for path in parent.glob("*/*.safetensors"):
        with suppress(OSError):
            facts = path.stat()
            yield facts.st_mtime, facts.st_size, path
