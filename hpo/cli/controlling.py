"""Commands that ask a running coordinator for something, through the store alone."""

import time

from hpo.cli.options import Name, Storage, emit


def stop(name: Name, storage: Storage = None) -> None:
    """Stop a study gently: nothing new starts, running trials finish. It can be resumed.

    Example: hpo stop quickstart
    """
    _request(name, storage, "drain")


def cancel(name: Name, storage: Storage = None) -> None:
    """Stop a study now: running trials go back to the queue. It can be resumed.

    Example: hpo cancel quickstart
    """
    _request(name, storage, "cancel")


def _request(name: str, storage: str | None, what: str) -> None:
    from hpo.store.store import Store
    from hpo.store.values import Request

    with Store.open(storage) as store:
        record, now = store.study(name), time.time()
        holder = store.holder(name)
        if holder is None or holder.expires_at <= now:
            emit(f"study {name} is {record.state}; no coordinator runs it, so there is nothing to {what}")
            return
        store.request(name, Request(what), now)
        emit(f"asked {holder.owner} to {what} study {name}; go on later with: hpo resume {name}")
