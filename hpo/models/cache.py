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
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from hpo.errors import HpoError

MANIFEST = "manifest.json"

_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Return where entries live: ``$HPO_CACHE``, else the user's cache directory. It need not exist."""
    given = os.environ.get("HPO_CACHE")
    return Path(given).expanduser() if given else Path(user_cache_dir("compression-hpo", appauthor=False))


def build_once(directory: Path, build: Callable[[Path], None]) -> Path:
    """Return `directory`, built by ``build(temporary)`` unless it is there and whole already.

    `build` fills the empty directory it is given and must not depend on its name. Other processes
    that want the same entry wait. A torn entry (files missing or of another size) is built again.

    Raises:
        HpoError: the cache cannot be written (any OSError, also one of `build`). Whatever else `build`
            raises passes through. Nothing is left behind in either case.
    """
    if not faults(directory):
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            _sweep(directory)
            if faults(directory):
                _build(directory, build)
    except OSError as error:
        raise HpoError(
            f"the cache entry {directory} cannot be written: {error}",
            "set HPO_CACHE to a writable directory with room for it",
        ) from error
    return directory


def faults(directory: Path, checksums: bool = False) -> list[str]:
    """Return what is wrong with an entry; empty when it is whole.

    Compares names and sizes, which is cheap enough for every open; with `checksums` also contents.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        files = {str(name): (int(e["bytes"]), str(e["sha256"])) for name, e in manifest["files"].items()}
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
