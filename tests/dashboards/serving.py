"""A dashboard that really serves, in a thread, for as long as a test needs it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waitress import wasyncore

from dashboards.serve import make_server


@contextmanager
def served(storage: str) -> Iterator[str]:
    """Serve a store at a free port; yield the address with the token."""
    made: tuple[Any, str] = make_server(storage, "127.0.0.1", 0)
    server, address = made
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield address
    finally:
        # Waitress expects to be interrupted. From outside its thread: let its workers finish, then have
        # its own loop close every connection, which ends the loop.
        server.task_dispatcher.shutdown(timeout=5)
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
        thread.join(10)
        if thread.is_alive():
            raise RuntimeError("the server did not stop")
