"""A copy of a store as it stands, made before its schema is changed and whenever somebody asks for one."""

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL

from hpo.errors import StoreError, Unsupported, UsageError
from hpo.store.url import display, file_of, secrets

_DUMP_PATIENCE_S = 3600.0


def back_up(url: URL, target: Path) -> Path:
    """Copy a store to a new file; whoever reads or writes it meanwhile is not disturbed.

    SQLite: a SQLite file (``VACUUM INTO``). PostgreSQL: a dump for ``pg_restore``, made by the ``pg_dump`` of
    this machine.

    Raises:
        UsageError: there is a file of that name.
        Unsupported: it is a store in memory, or there is no ``pg_dump``.
        StoreError: it could not be copied; nothing is left of the copy.
    """
    if target.exists():
        raise UsageError(f"{target} exists already", "name another file")
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.unlink(missing_ok=True)
        if url.drivername == "sqlite":
            _copy_file(file_of(url), partial)
        else:
            _dump(url, partial)
        partial.rename(target)
    except (OSError, sqlite3.Error, subprocess.SubprocessError) as error:
        raise StoreError(
            f"{display(url)} could not be copied to {target}: {_cleared(str(error), url)}",
            "is there room, and may you write there?",
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return target


def automatic_target(url: URL, schema: str) -> Path | None:
    """Return where a store is copied to before its schema changes; None where it is no file.

    `schema`: number and name of its newest step.
    """
    path = file_of(url)
    if path is None:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    number, _, _ = schema.partition(" ")
    # With the process: two that open an old store at once make a copy each.
    return path.with_name(f"{path.name}.schema-{number}-{stamp}-{os.getpid()}.bak")


def _copy_file(path: Path | None, target: Path) -> None:
    if path is None:
        raise Unsupported("a store in memory cannot be backed up", "keep it in a file")
    if not path.is_file():
        raise StoreError(f"there is no store at {path}", "name one with --storage or HPO_STORAGE")
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=30.0, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    handle = os.open(target, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _dump(url: URL, target: Path) -> None:
    tool = shutil.which("pg_dump")
    if tool is None:
        raise Unsupported(
            "a store on PostgreSQL is backed up by pg_dump, which is not installed here",
            "install the server's client tools, or let its administrator make the dump",
        )
    plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    plain = plain.difference_update_query(["password", "sslpassword"])
    # The password goes by the environment, which other users cannot read, unlike arguments.
    settings = dict(os.environ) | ({} if url.password is None else {"PGPASSWORD": str(url.password)})
    command = [tool, "--format=custom", f"--file={target}", plain.render_as_string(hide_password=False)]
    done = subprocess.run(  # noqa: S603 (a program of the system, no shell, the address as one argument)
        command, env=settings, capture_output=True, text=True, timeout=_DUMP_PATIENCE_S, check=False
    )
    if done.returncode != 0:
        raise subprocess.SubprocessError(
            done.stderr.strip().splitlines()[0] if done.stderr.strip() else "it failed"
        )


def _cleared(said: str, url: URL) -> str:
    for secret in secrets(url):
        said = said.replace(secret, "***")
    return said
