"""Two Ray nodes on one machine, to be killed and brought back; as root also a wire to cut between them.

As root the second node lives in a network namespace of its own, joined to the first by a pair of virtual
interfaces. Elsewhere both share the machine's loopback, and there is no wire to cut.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_PATIENCE_S = 60.0


class Nodes:
    """A head node and a second one, with a token of their own."""

    def __init__(self, workers: int, place: int = 0) -> None:
        """`workers`: how many fit on each node; `place`: which of several clusters on this machine it is."""
        self._workers = workers
        self._space, self._ours, self._theirs = (
            f"hpo-faults-{place}",
            f"hpofault{place}a",
            f"hpofault{place}b",
        )
        self._head, self._second = f"10.213.{77 + place}.1", f"10.213.{77 + place}.2"
        self._port = 6397 + 100 * place
        self._directory = tempfile.mkdtemp(prefix="hpo-ray-", dir="/tmp")  # sockets need short paths
        self.has_wire = os.geteuid() == 0 and shutil.which("ip") is not None
        self.settings = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            # A node that is not heard of is given up within seconds rather than half a minute.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
            "HPO_CACHE": str(Path(self._directory) / "cache"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def address(self) -> str:
        return f"{self._head if self.has_wire else '127.0.0.1'}:{self._port}"

    @property
    def cache(self) -> Path:
        """Where workers keep their journals."""
        return Path(self.settings["HPO_CACHE"])

    def start(self) -> None:
        if self.has_wire:
            self._lay_wire()
        self._ray(
            "start",
            "--head",
            f"--port={self._port}",
            "--include-dashboard=false",
            f"--ray-client-server-port={self._port + 1}",
            *self._node(self._head),
        )
        self.join()

    def _node(self, address: str) -> tuple[str, ...]:
        here = address if self.has_wire else "127.0.0.1"
        return (
            f"--node-ip-address={here}",
            f"--num-cpus={self._workers}",
            "--object-store-memory=80000000",
            f"--temp-dir={self._directory}" if address == self._head else "",
        )

    def _ray(self, *arguments: str, inside: Sequence[str] = ()) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [*inside, ray, *filter(None, arguments)]
        done = subprocess.run(
            command, env=self.settings, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")

    def join(self) -> None:
        """Bring the second node up."""
        inside = ("ip", "netns", "exec", self._space) if self.has_wire else ()
        self._ray("start", f"--address={self.address}", *self._node(self._second), inside=inside)

    def raylets(self) -> list[psutil.Process]:
        """Return the raylets of both nodes, the head's first."""
        found = [p for p in self._processes() if "raylet/raylet" in _command(p)]
        return sorted(found, key=lambda p: p.create_time())

    def actors(self) -> list[psutil.Process]:
        """Return the workers' processes."""
        return [p for p in self._processes() if _command(p).startswith("ray::Worker")]

    def _processes(self) -> list[psutil.Process]:
        """Return the processes of these nodes, and of none other that may run on this machine."""
        token = self.settings["RAY_AUTH_TOKEN"]
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "ray" in _command(process) and process.environ().get("RAY_AUTH_TOKEN") == token:
                    found.append(process)
        return found

    def kill_second(self) -> None:
        """End the second node as a power cut would: raylet and all that it started, at once."""
        raylets = self.raylets()
        if len(raylets) > 1:
            kill_tree(raylets[-1])

    def cut_wire(self) -> None:
        _ip("link", "set", self._ours, "down")

    def mend_wire(self) -> None:
        _ip("link", "set", self._ours, "up")
        time.sleep(0.2)

    def mend(self) -> None:
        """Have two nodes again, whatever has happened."""
        if self.has_wire:
            self.mend_wire()
        end = time.monotonic() + _PATIENCE_S
        while len(self.raylets()) < 2 and time.monotonic() < end:
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                self.join()

    def _lay_wire(self) -> None:
        self._take_wire_away()
        _ip("netns", "add", self._space)
        _ip("link", "add", self._ours, "type", "veth", "peer", "name", self._theirs)
        _ip("link", "set", self._theirs, "netns", self._space)
        _ip("addr", "add", f"{self._head}/30", "dev", self._ours)
        _ip("link", "set", self._ours, "up")
        for command in (
            ("addr", "add", f"{self._second}/30", "dev", self._theirs),
            ("link", "set", self._theirs, "up"),
        ):
            _ip("-n", self._space, *command)
        _ip("-n", self._space, "link", "set", "lo", "up")

    def _take_wire_away(self) -> None:
        with suppress(RuntimeError):
            _ip("link", "del", self._ours)
        with suppress(RuntimeError):
            _ip("netns", "del", self._space)

    def stop(self) -> None:
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()
        if self.has_wire:
            self._take_wire_away()
        shutil.rmtree(self._directory, ignore_errors=True)


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and all that it started, none of which can say goodbye."""
    with suppress(psutil.Error):
        family = [process, *process.children(recursive=True)]
        for one in family:
            with suppress(psutil.Error):
                one.send_signal(signal.SIGSTOP)
        for one in family:
            with suppress(psutil.Error):
                one.kill()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
