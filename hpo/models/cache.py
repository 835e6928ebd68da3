"""The cache directory, and entries in it that are built once, whole, by one process at a time.

An entry is a directory with a manifest. It is built under a lock in a temporary sibling and renamed
into place, so a reader finds the whole entry or none, also after ``kill -9`` or a full disk::

    <name>.lock            held while building; the system drops it with the process
    .<name>.tmp-XXXXXXXX   being built; the next builder sweeps it away if its maker died
    <name>/manifest.json   written last: size and SHA-256 of every file of the entry
"""

import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir
from safetensors import SafetensorError

from hpo.errors import HpoError
from hpo.models.shared_files import shared_files

MANIFEST = "manifest.json"

_log = logging.getLogger(__name__)


class Unwritable(HpoError):
    """An entry of the cache cannot be written: no room, or no permission."""


def cache_dir() -> Path:
    """Return where entries live: ``$HPO_CACHE``, else the user's cache directory. It need not exist."""
    given = os.environ.get("HPO_CACHE")
    return Path(given).expanduser() if given else Path(user_cache_dir("compression-hpo", appauthor=False))


def build_once(directory: Path, build: Callable[[Path], None]) -> Path:
    """Return `directory`, built by ``build(temporary)`` unless it is there and whole already.

    `build` fills the empty directory it is given and must not depend on its name. Other processes
    that want the same entry wait. A torn entry (files missing or of another size) is built again.

    Raises:
        Unwritable: the cache cannot be written (any OSError, also one of `build`, and what safetensors makes
            of one). Whatever else `build` raises passes through. Nothing is left behind in either case.
    """
    if not faults(directory):
        return directory
    try:
        if not fetched(directory) and _built(directory, build):
            _publish(directory)
    except (OSError, SafetensorError) as error:
        if isinstance(error, SafetensorError) and "I/O error" not in str(error):
            raise
        raise Unwritable(
            f"the cache entry {directory} cannot be written: {error}",
            "set HPO_CACHE to a writable directory with room for it",
        ) from error
    return directory


def fetched(directory: Path) -> bool:
    """Whether an entry is there and whole, now that others' copies of it were looked for (`HPO_SHARED`)."""
    if not faults(directory):
        return True
    shared, name = shared_files(), _shared_name(directory)
    if shared is None or name is None:
        return False

    def fetch(partial: Path) -> None:
        if not shared.fetch(name, partial):
            raise _NotShared

    with suppress(_NotShared, OSError):  # a cache that cannot be written is told of by who has to
        _built(directory, fetch)
    return not faults(directory)


class _NotShared(Exception):
    """Nobody has shared the entry, or its copy is not sound."""


def _publish(directory: Path) -> None:
    """Share an entry that was built here."""
    shared, name = shared_files(), _shared_name(directory)
    if shared is not None and name is not None:
        shared.publish(name, directory, _listed(directory))


def _shared_name(directory: Path) -> str | None:
    """Return by what name others know an entry: its path in the cache."""
    path, cache = directory.absolute(), cache_dir().absolute()
    return path.relative_to(cache).as_posix() if path.is_relative_to(cache) else None


def _listed(directory: Path) -> dict[str, tuple[int, str]]:
    """Return the size and SHA-256 of each file of an entry, as its manifest has them."""
    manifest = json.loads((directory / MANIFEST).read_bytes())
    return {str(name): (int(e["bytes"]), str(e["sha256"])) for name, e in manifest["files"].items()}


def faults(directory: Path, checksums: bool = False) -> list[str]:
    """Return what is wrong with an entry; empty when it is whole.

    Compares names and sizes, which is cheap enough for every open; with `checksums` also contents.
    """
    try:
        files = _listed(directory)
    except FileNotFoundError:
        return [f"{directory} has no {MANIFEST}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{directory / MANIFEST} cannot be read: {error}"]
    found = []
    for name, (size, digest) in files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{path} is missing")
        elif path.stat().st_size != size:
            found.append(f"{path} has {path.stat().st_size} bytes, not {size}")
        elif checksums and sha256(path) != digest:
            found.append(f"{path} has other contents than when it was built")
    return found


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _built(directory: Path, build: Callable[[Path], None]) -> bool:
    """Build an entry unless another process does so first; whether it was built here."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        _sweep(directory)
        if not faults(directory):
            return False
        _build(directory, build)
        return True


def _build(directory: Path, build: Callable[[Path], None]) -> None:
    partial = Path(tempfile.mkdtemp(prefix=_partial_prefix(directory), dir=directory.parent))
    try:
        build(partial)
        _seal(partial)
        if directory.exists():  # torn: a rename cannot replace a directory that holds files
            _log.warning("building %s again: %s", directory, "; ".join(faults(directory)))
            shutil.rmtree(directory)
        partial.rename(directory)
        _flush(directory.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # gone already when all went well


def _seal(partial: Path) -> None:
    """Write the manifest, with everything it names on disk before it."""
    entries = {}
    for path in _files(partial):
        _flush(path)
        size = path.stat().st_size
        entries[path.relative_to(partial).as_posix()] = {"bytes": size, "sha256": sha256(path)}
    manifest = partial / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=1) + "\n", encoding="utf-8")
    partial.chmod(0o755)  # mkdtemp makes it private; a cache may be shared
    _flush(manifest)
    _flush(partial)


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no directories
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = FileLock(directory.with_name(directory.name + ".lock"))
    try:
        held = lock.acquire(timeout=1)
    except Timeout:
        _log.warning("waiting for another process that builds %s", directory)
        held = lock.acquire()
    with held:
        yield


def _sweep(directory: Path) -> None:
    """Remove what killed builders of this entry left; the lock says that none is alive."""
    for stale in directory.parent.glob(glob.escape(_partial_prefix(directory)) + "*"):
        shutil.rmtree(stale, ignore_errors=True)


def _partial_prefix(directory: Path) -> str:
    return f".{directory.name}.tmp-"
