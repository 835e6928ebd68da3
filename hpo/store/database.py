"""A connection to SQLite or PostgreSQL: engines, transactions, retries. It knows no table.

Driver errors leave this module as `StoreError` only, raised outside the handler so that the driver's
error, whose text may hold connection parameters, is not chained to it.
"""

import logging
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import Unsupported
from hpo.store.failures import explain, is_passing, is_unconnected

T = TypeVar("T")

_log = logging.getLogger(__name__)

_DELAYS = (0.05, 0.2, 0.8, 2.0, 5.0)
"""Seconds between the first tries; from then on the last."""

_WORTH_TELLING_S = 1.0

WRITER_PATIENCE_S = 8.0
"""For how long a writer tries again what failed in passing, unless told otherwise."""
_READER_PATIENCE_S = 0.25
"""A page or a command line would rather say so."""

_BUSY_S = 5.0
"""How long SQLite itself waits for another writer."""

_SERVER_DEFAULTS = {
    "application_name": "hpo",
    "connect_timeout": 5,  # seconds
    # A server that vanished without a word is noticed within a minute, not within hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
"""Parameters of libpq; an address may say otherwise."""


def pause(closing: threading.Event, seconds: float) -> bool:
    """Wait before another try; return whether the database was closed meanwhile."""
    return closing.wait(seconds)


class Database:
    """Runs functions of a connection, each in one transaction, again if it failed in passing.

    A function may therefore run more than once; it must do nothing but use its connection.
    """

    def __init__(self, url: URL, *, read_only: bool, patience_s: float = WRITER_PATIENCE_S) -> None:
        """`patience_s`: for how long to try again what failed in passing; a reader gives up soon."""
        self.url = url
        self._patience_s = _READER_PATIENCE_S if read_only else patience_s
        self._closing = threading.Event()
        if url.drivername == "sqlite":
            self._engine = _sqlite(url, read_only)
            self._reader: Engine = self._engine
            self._writer: Engine = self._engine.execution_options(immediate=True)
        else:
            self._engine = _postgresql(url, read_only)
            # One snapshot for all queries of a read, as SQLite gives by itself.
            self._reader = self._engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            # psycopg begins READ WRITE where it is not told otherwise, whatever the session's default.
            self._writer = self._reader if read_only else self._engine

    def read(self, work: Callable[[Connection], T], *, patient: bool = True) -> T:
        """Run `work` on one consistent snapshot; unless `patient`, do not wait for an absent server."""
        return self._run(self._reader, work, patient)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, committed when it returns and rolled back when it raises."""
        return self._run(self._writer, work, True)

    def close(self) -> None:
        self._closing.set()  # whoever waits for an absent server in another thread
        self._engine.dispose()

    def _run(self, engine: Engine, work: Callable[[Connection], T], patient: bool) -> T:
        for delay in self._delays():
            try:
                with engine.begin() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                again = is_passing(error) or (patient and is_unconnected(error))
                failure = explain(self.url, error)
            if delay is None or not again:
                break
            if delay > _WORTH_TELLING_S:
                _log.warning("%s; trying again in %.0f s", failure.message, delay)
            if pause(self._closing, delay):
                break
        raise failure

    def _delays(self) -> Iterator[float | None]:
        """Yield the seconds to wait after each try, None after the last."""
        waited = 0.0
        for delay in chain(_DELAYS, repeat(_DELAYS[-1])):
            if waited >= self._patience_s:
                break
            waited += delay
            yield delay * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
        yield None


def _sqlite(url: URL, read_only: bool) -> Engine:
    # The only connection of a store in memory is shared by taking turns; with it the store would go.
    alone: dict[str, Any] = {} if url.database else {"pool_size": 1, "max_overflow": 0}
    opened = partial(_open_file, url, read_only)
    engine = create_engine("sqlite://", creator=opened, poolclass=QueuePool, **alone)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at the start: a reader that turns writer can fail without waiting.
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _open_file(url: URL, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    name = f"file:{quote(url.database)}?mode={mode}" if url.database else ":memory:"
    connection = sqlite3.connect(
        name,
        uri=True,
        timeout=_BUSY_S,  # this is PRAGMA busy_timeout
        isolation_level=None,  # transactions are begun by `_begin`, not guessed by the driver
        check_same_thread=False,  # the pool lends a connection to one thread at a time
    )
    try:
        if url.database and not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL: safe against kill -9, never corrupt
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _postgresql(url: URL, read_only: bool) -> Engine:
    options = {name: value for name, value in _SERVER_DEFAULTS.items() if name not in url.query}
    if read_only:
        given = url.query.get("options", "")
        options["options"] = f"{given} -c default_transaction_read_only=on".strip()
    try:
        return create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=options)
    except ImportError:
        missing = Unsupported(
            "a store on PostgreSQL needs the package psycopg, which is not installed",
            "pip install 'compression-hpo[postgres]'",
        )
    raise missing
