"""Cache entries that machines share: what one has built, others fetch, by content and checked.

``HPO_SHARED`` names a directory that all machines see, or a place as fsspec writes it (``s3://bucket/prefix``,
``gs://...``). Nothing there is changed once it is written, and what is written last names the rest::

    objects/<sha256>               a file, named by its content
    entries/<entry's path>.json    which names and objects an entry consists of

So machines that build one entry at the same time do each other no harm, and a reader finds all of it or none.
What was torn or changed on the way does not have the content of its name: it is refused, removed, and built
again. That guards against faults. Who may write there is trusted, as who may write the cache itself is.
"""

import hashlib
import json
import logging
import os
import posixpath
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hpo.errors import UsageError

SHARED = "HPO_SHARED"
"""Environment variable: where machines share what they have built; by default nowhere."""

_WHOLE_OR_NOT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "memory"})
"""Kinds of storage where a file appears at its name when all of it is there."""

_CHUNK = 2**24

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedFiles:
    """A place that machines share."""

    system: Any
    """A file system of fsspec."""
    root: str

    @classmethod
    def named(cls, place: str) -> "SharedFiles":
        """Return the files at a path or URL.

        Raises:
            UsageError: it is no place that can be reached from here.
        """
        from fsspec.core import url_to_fs

        try:
            system, root = url_to_fs(str(Path(place).expanduser()) if "://" not in place else place)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"{SHARED} is {place!r}: {error}",
                "give a directory that all machines see, or a URL such as s3://bucket/prefix with its "
                "package installed (s3fs for s3, gcsfs for gs)",
            ) from error
        return cls(system, str(root).rstrip("/"))

    def fetch(self, entry: str, directory: Path) -> bool:
        """Fill an empty directory with an entry; whether it was there and whole, else the rest is of no use.

        A place that cannot be reached has nothing.
        """
        try:
            return self._fetch(entry, directory)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s: %s cannot be fetched: %s", self.root, entry, error)
            return False

    def _fetch(self, entry: str, directory: Path) -> bool:
        try:
            listed = json.loads(self.system.cat_file(self._entry(entry)))
        except FileNotFoundError:
            return False
        wanted = {_inside(name): (int(e["bytes"]), _digest(e["sha256"])) for name, e in listed.items()}
        for name, (_, digest) in wanted.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._copied(digest, path) != digest:
                _log.warning("%s: object %s of %s is not what its name says", self.root, digest, entry)
                with suppress(OSError):  # so that whoever builds the entry puts it right
                    self.system.rm_file(self._object(digest))
                return False
        return True

    def _copied(self, digest: str, path: Path) -> str:
        """Copy an object to a file; return the SHA-256 of what came."""
        seen = hashlib.sha256()
        with self.system.open(self._object(digest), "rb") as source, path.open("wb") as target:
            while chunk := source.read(_CHUNK):
                seen.update(chunk)
                target.write(chunk)
        return seen.hexdigest()

    def publish(self, entry: str, directory: Path, files: Mapping[str, tuple[int, str]]) -> None:
        """Offer an entry to others; a place that cannot be written is told of in the log alone.

        Args:
            files: name below `directory` -> size in bytes and SHA-256 in hex.
        """
        try:
            for name, (size, digest) in files.items():
                if not self._has(digest, size):
                    self._put(directory / name, self._object(digest))
            listed = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files.items()}
            self._write(json.dumps(listed, indent=1).encode(), self._entry(entry))
        except (OSError, ValueError) as error:
            _log.warning("%s: %s cannot be shared: %s", self.root, entry, error)

    def _has(self, digest: str, size: int) -> bool:
        try:
            return int(self.system.info(self._object(digest))["size"]) == size
        except FileNotFoundError:
            return False

    def _put(self, path: Path, name: str) -> None:
        self.system.makedirs(posixpath.dirname(name), exist_ok=True)
        first = self._first_name(name)
        self.system.put_file(str(path), first)
        self._rename(first, name)

    def _write(self, content: bytes, name: str) -> None:
        self.system.makedirs(posixpath.dirname(name), exist_ok=True)
        first = self._first_name(name)
        self.system.pipe_file(first, content)
        self._rename(first, name)

    @property
    def _is_whole_or_not(self) -> bool:
        kinds = self.system.protocol
        return bool(_WHOLE_OR_NOT & {kinds} if isinstance(kinds, str) else _WHOLE_OR_NOT & set(kinds))

    def _first_name(self, name: str) -> str:
        return name if self._is_whole_or_not else f"{name}.tmp-{uuid.uuid4().hex[:8]}"

    def _rename(self, first: str, name: str) -> None:
        if first == name:
            return
        if "file" in self.system.protocol:
            os.replace(first, name)  # what was there goes in the same moment
        else:
            self.system.mv(first, name)

    def _object(self, digest: str) -> str:
        return f"{self.root}/objects/{digest[:2]}/{digest}"

    def _entry(self, entry: str) -> str:
        return f"{self.root}/entries/{entry}.json"


def shared_files() -> SharedFiles | None:
    """Return what ``HPO_SHARED`` names; None where it is not set.

    Raises:
        UsageError: it names no place that can be reached from here.
    """
    place = os.environ.get(SHARED)
    return SharedFiles.named(place) if place else None


def shared_directory() -> Path | None:
    """Return what ``HPO_SHARED`` names where that is a directory; None for a URL, or where it is not set."""
    place = os.environ.get(SHARED, "")
    return Path(place).expanduser().absolute() if place and "://" not in place else None


def for_workers() -> dict[str, str]:
    """Return what workers on other machines are told of the place, as environment variables: nothing where it
    may hold a secret (a user or a signature), since Ray shows to all what it hands on."""
    place = os.environ.get(SHARED, "")
    if not place or set("@?") & set(place):
        return {}
    return {SHARED: place if "://" in place else str(Path(place).expanduser().absolute())}


def _inside(name: str) -> str:
    """Return a name that stays below its directory.

    Raises:
        ValueError: it does not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise ValueError(f"{name!r} is no name of a file in an entry")
    return path.as_posix()


def _digest(text: str) -> str:
    """Return a SHA-256 in hex.

    Raises:
        ValueError: it is none.
    """
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{text!r} is no SHA-256")
    return text
