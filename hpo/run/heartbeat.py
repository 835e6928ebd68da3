"""Keep a coordinator's lease alive while it works, from a thread of its own."""

import threading
import time
from types import TracebackType
from typing import Self

from hpo.errors import StoreError
from hpo.store.store import Store
from hpo.store.values import Lease

LEASE_S = 30.0
"""A coordinator silent for so long may lose its study to another."""

STORE_PATIENCE_S = 600.0
"""For how long a coordinator waits for a database that is away; its workers go on meanwhile."""


_LEAVING_S = 5.0


class Heartbeat:
    """Renews a lease every third of its length. `check` raises once it is lost.

    While the database is away nobody can take the lease either, so nothing is lost by waiting for it: the
    store does, for as long as it has patience. What fences is the epoch. A lease that another coordinator has
    taken meanwhile, from elsewhere, is noticed at the next renewal and at the next write, whichever is first.
    """

    def __init__(self, store: Store, lease: Lease, seconds: float = LEASE_S) -> None:
        self._store, self.lease, self._seconds = store, lease, seconds
        self._stop = threading.Event()
        self._lost: StoreError | None = None
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=_LEAVING_S)  # it may be waiting for a database that is away

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            try:
                self._store.renew(self.lease, self._seconds, time.time())
            except StoreError as error:
                self._lost = error
                return

    def check(self) -> None:
        """Raise if the lease is lost.

        Raises:
            StoreError: another coordinator has the study, or the store is out of reach for too long.
        """
        if self._lost is not None:
            raise self._lost
