"""Serves the dashboard with waitress: to this machine alone unless told otherwise."""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from typing import Protocol

import waitress

from dashboards import front_page
from dashboards.app import create_app
from dashboards.security import Access, is_loopback
from dashboards.source import StudySource
from hpo.errors import HpoError, UsageError

_THREADS = 8
_HELD_IN_MEMORY = 16 << 20
"""Bytes of an answer before waitress writes it to a temporary file; plotly.js has 5 MB."""
_LARGEST_BODY = 1 << 20
"""Bytes. The pages send a few thousand at most."""


class Server(Protocol):
    """What is used of a waitress server."""

    def run(self) -> None: ...

    def close(self) -> None: ...


def serve(
    storage: str | None,
    host: str = "127.0.0.1",
    port: int = 8050,
    token: str | None = None,
    *,
    allow_remote: bool = False,
    allow_actions: bool = False,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the dashboard of a store until interrupted; its address with the token is announced once.

    Raises:
        UsageError: `host` can be reached from other machines and `allow_remote` is not set, it cannot
            be bound, or the token is too short.
    """
    server, address = make_server(
        storage, host, port, token, allow_remote=allow_remote, allow_actions=allow_actions
    )
    # A browser asks for many files at once; that some wait their turn is no news.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    announce(f"Dashboard: {address}")
    can = (
        "read every study of the store, stop it and add trials"
        if allow_actions
        else "read every study of the store"
    )
    announce(f"Whoever has this address can {can}. Ctrl-C stops it.")
    if not is_loopback(host):
        announce("It is plain HTTP: whoever listens on the way can have it too.")
    try:
        server.run()
    finally:
        server.close()


def make_server(
    storage: str | None,
    host: str,
    port: int,
    token: str | None = None,
    *,
    allow_remote: bool = False,
    allow_actions: bool = False,
) -> tuple[Server, str]:
    """Return a server that is bound but does not answer yet, and the address to open.

    Port 0 takes a free one. Raises as `serve` does.
    """
    if not is_loopback(host) and not allow_remote:
        raise UsageError(
            f"{host} can be reached from other machines",
            "keep 127.0.0.1 and use a tunnel (ssh -L 8050:127.0.0.1:8050 USER@THIS-MACHINE), "
            "or say --allow-remote",
        )
    listener = _bound(host, port)
    try:
        access = Access.to(host, listener.getsockname()[1], token)
        source = StudySource(storage)
        app = create_app(storage, access, allow_actions, source)
        threading.Thread(target=_read_ahead, args=(source,), name="reading ahead", daemon=True).start()
    except BaseException:
        listener.close()
        raise
    server: Server = waitress.create_server(
        app.server,
        sockets=[listener],
        threads=_THREADS,
        max_request_body_size=_LARGEST_BODY,
        outbuf_overflow=_HELD_IN_MEMORY,
        ident=None,
    )
    return server, _address(host, listener, access)


def _read_ahead(source: StudySource) -> None:
    """Read the study that changed last and make its page once, so that the first reader need not wait."""
    with contextlib.suppress(HpoError):  # a page will say it
        if studies := source.store().studies():
            front_page.layout(source, max(studies, key=lambda study: study.updated_at).name, None)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{host} is no address of this machine: {error}", "give --host 127.0.0.1") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(f"cannot serve at {host}:{port}: {error}", "give another --port or --host") from None
    return listener


def _address(host: str, listener: socket.socket, access: Access) -> str:
    # "Every address of this machine" is no address to open from another one; its name is.
    shown = socket.gethostname() if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{listener.getsockname()[1]}/?token={access.token}"
