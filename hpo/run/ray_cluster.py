"""Join a Ray cluster, or start one on this machine; and what a cluster has room for."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import Config  # type: ignore[attr-defined]  # no stub tells of it
from ray.exceptions import RayError

from hpo.errors import HpoError

AUTH_MODE = "RAY_AUTH_MODE"
"""Ray's environment variable: ``token`` lets nobody in without one, ``disabled`` lets everyone in."""

LOOPBACK = "127.0.0.1"


def want_token() -> None:
    """Make Ray ask for a token in whatever is started or joined from here, unless the user says otherwise.

    An open Ray port is remote code execution (CVE-2023-48022), on the loopback interface too: a web page can
    reach it (CVE-2025-62593).
    """
    if AUTH_MODE not in os.environ:
        os.environ[AUTH_MODE] = "token"
        Config.initialize("")  # Ray reads its settings when it is imported, which was earlier


def connect(address: str | None, workers: int, threads: int) -> bool:
    """Join the cluster at `address`, or start a local one; return whether one was started.

    A local one stays on the loopback interface and wants a token, which Ray makes once a user
    (``~/.ray/auth_token``).

    Raises:
        HpoError: there is no cluster at `address`, or it wants another token.
    """
    if ray.is_initialized():
        return False
    want_token()
    quiet = {"log_to_driver": False, "logging_level": "error"}
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            raise HpoError(
                f"no Ray cluster can be joined at {address}: {first_line(str(error))}", _how_to_join(error)
            ) from None
        return False
    cores = max(os.cpu_count() or 1, workers * threads)
    # "local": never join by accident a cluster that somebody else left on this machine.
    with _on_loopback():
        ray.init(address="local", num_cpus=cores, include_dashboard=False, _node_ip_address=LOOPBACK, **quiet)
    return True


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Keep what is started inside off the network.

    Ray replaces a loopback address by the machine's own, and then listens everywhere, unless it takes itself
    to be on a system where it supports no clusters; its servers look at the address they are given.
    """
    before, was = os.environ.get(_CLUSTERS), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_CLUSTERS], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was
        if before is None:
            del os.environ[_CLUSTERS]
        else:
            os.environ[_CLUSTERS] = before


_CLUSTERS = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR


def _how_to_join(error: Exception) -> str:
    if "token" in str(error).lower() or "auth" in type(error).__name__.lower():
        return (
            "the cluster's token must be in RAY_AUTH_TOKEN, or in the file ~/.ray/auth_token; "
            "`ray get-auth-token` on its head node shows it"
        )
    return "start one with `ray start --head`, or leave --ray-address out to start Ray here"


def is_gone(node: str) -> bool:
    """Whether a node, by its id in hex, has left the cluster."""
    return not any(known["Alive"] for known in ray.nodes() if known["NodeID"] == node)


def has_room(wanted: Mapping[str, float]) -> bool:
    """Whether some node of now, if it did nothing else, could hold a worker that wants so much."""
    return any(
        all(node["Resources"].get(name, 0.0) >= amount for name, amount in wanted.items())
        for node in ray.nodes()
        if node["Alive"]
    )


def nodes_with(resources: Collection[str]) -> frozenset[str]:
    """Return the ids, in hex, of the nodes that have any of these resources."""
    return frozenset(
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and not node["Resources"].keys().isdisjoint(resources)
    )


def what_there_is() -> str:
    """Describe a cluster's nodes in a line: ``2 nodes (16 CPU, 1 GPU each), 1 node (4 CPU, 1 target)``."""
    kinds = Counter(_resources(node["Resources"]) for node in ray.nodes() if node["Alive"])
    told = [
        f"{count} node{'s' * (count > 1)} ({what}{' each' * (count > 1)})" for what, count in kinds.items()
    ]
    return ", ".join(told) or "no node"


def _resources(resources: Mapping[str, Any]) -> str:
    """Describe what a node offers, without its memory, and the names that Ray adds."""
    shown = {name: n for name, n in resources.items() if ":" not in name and "memory" not in name}
    return ", ".join(f"{n:g} {name}" for name, n in sorted(shown.items())) or "nothing"


def first_line(text: str) -> str:
    """Return the first line of a text that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else text
