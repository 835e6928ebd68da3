"""Keep a coordinator's lease alive while it works, from a thread of its own."""

import threading
import time
from types import TracebackType
from typing import Self

from hpo.errors import LeaseLost, StoreError
from hpo.store.store import Store
from hpo.store.values import Lease

LEASE_S = 30.0
"""A coordinator silent for so long has lost its study."""


class Heartbeat:
    """Renews a lease every third of its length. `check` raises once it is lost."""

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
        self._thread.join()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self._seconds / 3):
            try:
                self._store.renew(self.lease, self._seconds, time.time())
                renewed = time.monotonic()
            except LeaseLost as error:
                self._lost = error
                return
            except StoreError as error:
                # The database may come back before the lease runs out; after that it is not ours.
                if time.monotonic() - renewed > self._seconds:
                    self._lost = error
                    return

    def check(self) -> None:
        """Raise if the lease is lost.

        Raises:
            StoreError: another coordinator has the study, or the store is out of reach for too long.
        """
        if self._lost is not None:
            raise self._lost
