"""What a database driver's error means: whether to try again, and how to say it to a person."""

import sqlite3

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from hpo.errors import StoreError
from hpo.store import url as urls

_TRY_AGAIN = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
        "53300",  # too many connections
        "57P01",  # the server is being shut down
        "57P02",  # it crashed
        "57P03",  # it is starting up
    }
)
"""PostgreSQL states that pass by themselves; so does the class 08, a broken connection."""

# What a driver says (in part, lower case) -> what to do about it.
_HINTS = (
    ("connection refused", "start the server, or check host and port in --storage or HPO_STORAGE"),
    ("no such file or directory", "start the server, or check host and port in --storage or HPO_STORAGE"),
    ("timeout expired", "check host, port and firewall"),
    ("could not translate host name", "check the host name in --storage or HPO_STORAGE"),
    ("failed to resolve host", "check the host name in --storage or HPO_STORAGE"),
    ("name or service not known", "check the host name in --storage or HPO_STORAGE"),
    ("password authentication failed", "check user and password, e.g. in ~/.pgpass"),
    ("no password supplied", "give a password, e.g. in ~/.pgpass"),
    ("does not exist", "create it (createdb NAME), or check its name in --storage or HPO_STORAGE"),
    ("read-only transaction", "it was opened for reading only"),
    ("permission denied", "ask the owner of the database for the right to do this"),
    ("readonly database", "it was opened for reading only, or its file or directory is not yours to write"),
    ("unable to open database file", "check that its directory exists and that you may write there"),
    ("not a database", "name another file; this one was not made by SQLite"),
    ("disk is full", "make room on the disk, then hpo resume the study"),
    ("disk i/o error", "check the disk; SQLite needs a local one"),
    ("malformed", "restore it from a backup, or salvage with the sqlite3 tool: .recover"),
    ("locked", "another process is writing for long; wait, or use PostgreSQL for many writers"),
)


def is_passing(error: SQLAlchemyError) -> bool:
    """Whether the same transaction may well succeed a moment later."""
    if not isinstance(error, DBAPIError):
        return False
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the high bits only say more precisely where
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    state = getattr(cause, "sqlstate", None)
    return error.connection_invalidated or state in _TRY_AGAIN or str(state or "").startswith("08")


def is_unconnected(error: SQLAlchemyError) -> bool:
    """Whether no connection to the server could be made at all."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    return error.statement is None and getattr(error.orig, "sqlstate", None) is None


def explain(url: URL, error: SQLAlchemyError) -> StoreError:
    """Return the error to show for a driver's one; nothing in it holds a password."""
    said = _first_line(url, error)
    hint = next((hint for part, hint in _HINTS if part in said.lower()), "see hpo doctor")
    verb = "cannot reach" if is_unconnected(error) else "cannot use"
    return StoreError(f"{verb} the store at {_place(url)}: {said}", hint)


def _place(url: URL) -> str:
    if url.drivername == "sqlite":
        return url.database or "sqlite:// (in memory)"
    given = url.query.get("host", "a local socket")
    host = url.host or (given if isinstance(given, str) else " or ".join(given))
    port = "" if ":" in host else f", port {url.port or url.query.get('port', 5432)}"
    return f"host {host}{port}, database {url.database or 'named after the user'}"


def _first_line(url: URL, error: SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    for secret in urls.secrets(url):
        said = said.replace(secret, "***")
    return said
