"""Where a study store is: reading its address, showing it without the password, refusing bad places."""

import os
import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from hpo.errors import StoreError, UsageError, did_you_mean
from hpo.store.secret_file import read_secret

ENVIRONMENT = "HPO_STORAGE"
FILE_ENVIRONMENT = "HPO_STORAGE_FILE"
_FILE_PREFIX = "file:"
DEFAULT = "sqlite:///hpo.db"

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "postgresql+psycopg2": "postgresql+psycopg",
}
"""What users write, most of it learnt from other tools -> the driver we use."""

_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_SECRETS = frozenset({"password", "sslpassword"})
"""Parameters of a PostgreSQL address that libpq takes a secret from."""

_EXAMPLES = (
    "write sqlite:///hpo.db, a file ending .db, or postgresql://user@host:5432/database; "
    "an @ within a user or password is written %40"
)

# SQLite's locks and its shared-memory index (WAL) do not work over these; a store there gets corrupted.
# In user space they are called fuse.sshfs and the like.
_NETWORK_FILE_SYSTEMS = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cephfs",
        "cifs",
        "gcsfuse",
        "glusterfs",
        "gpfs",
        "juicefs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "pvfs2",
        "rclone",
        "s3fs",
        "smb",
        "smb3",
        "smbfs",
        "smbnetfs",
        "sshfs",
        "wekafs",
    }
)


def parse(text: str | None = None) -> URL:
    """Return the address of a store: `text`, else ``$HPO_STORAGE``, else what stands in the file
    ``$HPO_STORAGE_FILE``, else `DEFAULT`.

    ``file:PATH`` is what stands in that file, which only its owner may be able to read: that, and the
    environment, is where an address with a password belongs.

    PostgreSQL is always reached through psycopg 3, and a path ending ``.db``, ``.sqlite`` or
    ``.sqlite3`` is a SQLite file. File paths become absolute, so that a later change of the working
    directory does not move the store.

    Raises:
        UsageError: it is no address, or of a database that is not supported, or its file is open to others.
    """
    given = text or os.environ.get(ENVIRONMENT) or _from_file() or DEFAULT
    if given.startswith(_FILE_PREFIX):
        given = read_secret(Path(given.removeprefix(_FILE_PREFIX).removeprefix("//")))
    if given == ":memory:":
        return URL.create("sqlite")
    if "://" not in given and given.endswith(_SUFFIXES):
        return _sqlite(URL.create("sqlite", database=given))
    url = _read(given)
    if url is None:
        raise UsageError(f"{_masked(given)!r} is not the address of a study store", _EXAMPLES)
    if url.drivername not in _DRIVERS:
        raise UsageError(
            f"the store {display(url)} is of the unknown kind {url.drivername!r}",
            did_you_mean(url.drivername, ("postgresql", "sqlite")),
        )
    url = url.set(drivername=_DRIVERS[url.drivername])
    return _sqlite(url) if url.drivername == "sqlite" else url


def _from_file() -> str:
    path = os.environ.get(FILE_ENVIRONMENT)
    return f"{_FILE_PREFIX}{path}" if path else ""


def display(url: URL | str) -> str:
    """Return an address that may be shown and logged: its password is ``***``."""
    read = _read(url) if isinstance(url, str) else url
    if read is None:
        return _masked(str(url))
    hidden = {key: "***" for key in read.query if key.lower() in _SECRETS}
    shown = read.update_query_dict(hidden).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", "***")


def secrets(url: URL) -> tuple[str, ...]:
    """Return every secret in an address, so that a driver's message can be cleared of them."""
    values = [value for key, value in url.query.items() if key.lower() in _SECRETS]
    found = [url.password, *(v for value in values for v in ([value] if isinstance(value, str) else value))]
    return tuple(str(secret) for secret in found if secret)


def file_of(url: URL) -> Path | None:
    """Return the file of a SQLite store; None for one in memory or on a server."""
    return Path(url.database) if url.drivername == "sqlite" and url.database else None


def refuse_network_file_system(path: Path, mounts: str | None = None) -> None:
    """Refuse a SQLite file where file locks cannot be trusted.

    `mounts` is text as in ``/proc/mounts``, by default of this machine; a system without one passes.

    Raises:
        StoreError: `path` lies on a network file system.
    """
    kind, point = _file_system(path, _mounts() if mounts is None else mounts)
    if kind.removeprefix("fuse.") in _NETWORK_FILE_SYSTEMS:
        raise StoreError(
            f"the SQLite store {path} lies on a network file system ({kind} at {point}), "
            "where SQLite's locks fail and the file gets corrupted",
            "put it on a local disk (--storage sqlite:////local/disk/hpo.db), or use PostgreSQL",
        )


def _mounts() -> str:
    table = Path("/proc/mounts")
    return table.read_text() if table.exists() else ""


def _file_system(path: Path, mounts: str) -> tuple[str, str]:
    """Return the type and mount point of the file system that holds `path`: the deepest, latest mount."""
    target, best = path.resolve(), ("", "")
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1])
        if target.is_relative_to(point) and len(point) >= len(best[1]):
            best = (fields[2], point)
    return best


_OCTAL = re.compile(r"\\([0-7]{3})")
"""How the kernel writes a blank in a mount point: ``\\040``."""


def _sqlite(url: URL) -> URL:
    if url.host:
        raise UsageError(
            f"{display(url)} names a host, which SQLite has not",
            f"three slashes before a relative path: sqlite:///{url.host}, four before an absolute one",
        )
    if url.query or (url.database or "").startswith("file:"):
        raise UsageError(f"{display(url)} has SQLite parameters", "give the plain path of the file")
    if url.database in (None, "", ":memory:"):
        return URL.create("sqlite")
    return URL.create("sqlite", database=str(Path(str(url.database)).expanduser().absolute()))


def _read(text: str) -> URL | None:
    if text.count("@") > 1 and not text.startswith("sqlite"):
        return None  # a password with a bare @, whose rest would be taken, and shown, as the host
    # Not raised from here: the parser's own error can quote a part of the password as a bad port.
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        return None


def _masked(text: str) -> str:
    """Hide whatever stands between a first colon (or the scheme) and the last @, and secret parameters."""
    text = re.sub(r"(password\s*=\s*)('[^']*'|[^&\s]*)", r"\1***", text, flags=re.IGNORECASE)
    return re.sub(r"^((?:[^:/@]*://)?[^:/@]*):?.*@", r"\1:***@", text, flags=re.DOTALL)
