"""Taking the right to run a study, in the name of this process."""

import os
import platform
import time
import uuid

import psutil

from hpo.run.heartbeat import LEASE_S
from hpo.store.store import Store
from hpo.store.values import Lease


def owner_name() -> str:
    """Return who holds a lease: machine, process, and a random part so that no two are alike."""
    return f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def take_lease(store: Store, name: str) -> Lease:
    """Acquire a study; from a holder of this machine whose process is gone, at once.

    Raises:
        StoreError: another coordinator is alive, or may be.
    """
    holder = store.holder(name)
    gone = holder.owner if holder is not None and _is_dead(holder.owner) else None
    return store.acquire(name, owner_name(), LEASE_S, time.time(), replacing=gone)


def _is_dead(owner: str) -> bool:
    """Whether a lease's owner was a process of this machine that no longer exists."""
    node, _, rest = owner.rpartition(":")[0].rpartition(":")
    return node == platform.node() and rest.isdigit() and not psutil.pid_exists(int(rest))
