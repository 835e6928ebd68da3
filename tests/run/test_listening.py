"""A Ray that we start is out of reach for the network: every socket it listens on is the loopback's."""

import ipaddress

import psutil
import pytest
import ray

from hpo.run.ray_cluster import connect
from tests.run import benches

pytestmark = pytest.mark.ray


def _listening() -> dict[str, str]:
    """Return the addresses that this process and all it has started listen on -> name of the process."""
    here = psutil.Process()
    found = {}
    for process in (here, *here.children(recursive=True)):
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found[f"{connection.laddr.ip} {connection.laddr.port}"] = process.name()
    return found


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def test_no_socket_of_a_ray_that_we_start_is_open_to_the_network() -> None:
    assert connect(None, workers=1, threads=1)
    try:
        before = ray.remote(benches.x_of).remote(benches.study().space.candidate({"x": 0.5}))
        assert ray.get(before) == 0.5
        found = _listening()
    finally:
        ray.shutdown()
    assert {"gcs_server", "raylet"} <= set(found.values())
    assert [f"{name}: {place}" for place, name in found.items() if not _is_loopback(place.split()[0])] == []


def test_the_open_address_is_no_loopback() -> None:
    assert not _is_loopback("0.0.0.0")
    assert not _is_loopback("::")
    assert _is_loopback("::ffff:127.0.0.1")
