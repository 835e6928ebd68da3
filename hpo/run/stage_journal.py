"""What a worker has done and nobody may have heard of yet, on its own disk.

One file an attempt, ``<cache>/journal/<name>/<trial>-<attempt>.jsonl``, one line a finished stage::

    {"sha256": "...", "at": 1732233600.5, "job": {...}, "result": {...}}

The checksum is of the rest of the line as this module writes it. A line is on disk before its result is told
to anyone. One that was torn by a crash or a full disk is passed over; those before and after it count.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpo.errors import HpoError
from hpo.models.cache import cache_dir
from hpo.run.job import Job, StageResult

_log = logging.getLogger(__name__)


class StageJournal:
    """The journal of one study's trials on this node; its workers share it."""

    def __init__(self, name: str) -> None:
        """`name` is the study's, the same for every worker and coordinator of it.

        Raises:
            HpoError: it could name a place outside the journal.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise HpoError(f"a journal cannot be called {name!r}", "allowed: letters, digits, - and _")
        self.directory = cache_dir() / "journal" / name

    def write(self, job: Job, result: StageResult) -> None:
        """Write a result down. Where the disk refuses, that is warned of: the result is told all the same."""
        path = self._path(job)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self._remove_earlier(job)
            _append(path, _line(job, result))
        except OSError as error:
            _log.warning(
                "stage %s of trial %d is not in the journal, for %s cannot be written: %s",
                result.stage,
                job.number,
                path,
                error,
            )

    def waiting(self) -> list[tuple[Job, StageResult]]:
        """Return what is in the journal: the trials by when their first stage was done, each in its order."""
        found = []
        for path in self.directory.glob("*.jsonl"):
            with suppress(FileNotFoundError):  # removed in this moment: it was heard of
                lines = [entry for line in path.read_bytes().splitlines() if (entry := _entry(line))]
                if lines:
                    found.append(lines)
        found.sort(key=lambda lines: lines[0][0])
        return [(job, result) for lines in found for _, job, result in lines]

    def remove(self, jobs: Iterable[Job]) -> None:
        """Remove what is there of these attempts."""
        for job in jobs:
            with suppress(OSError):
                self._path(job).unlink(missing_ok=True)

    def _remove_earlier(self, job: Job) -> None:
        """Remove earlier attempts at a trial: whoever asked for another one knows what came of them."""
        for path in self.directory.glob(f"{job.number}-*.jsonl"):
            attempt = path.stem.partition("-")[2]
            if attempt.isdigit() and int(attempt) < job.attempt:
                path.unlink(missing_ok=True)

    def _path(self, job: Job) -> Path:
        return self.directory / f"{job.number}-{job.attempt}.jsonl"


def _line(job: Job, result: StageResult) -> bytes:
    entry = {"at": time.time(), "job": job.to_mapping(), "result": result.to_mapping()}
    return json.dumps({"sha256": _digest(entry), **entry}).encode()


def _entry(line: bytes) -> tuple[float, Job, StageResult] | None:
    """Return what a line says; None if it is torn."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or entry.pop("sha256", "") != _digest(entry):
            return None
        return float(entry["at"]), Job.from_mapping(entry["job"]), StageResult.from_mapping(entry["result"])
    except (ValueError, KeyError, TypeError):
        return None


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry).encode()).hexdigest()


def _append(path: Path, line: bytes) -> None:
    """Append a line, on disk when this returns; nothing of it is left where that fails."""
    is_new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        is_torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        try:
            _write_all(handle, (b"\n" if is_torn else b"") + line + b"\n")
            os.fsync(handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    if is_new:
        _flush(path.parent)


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _flush(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
