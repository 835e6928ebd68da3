"""Disks that are full, as a root sees them and as everybody else does."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SMALL_BYTES = 2**20


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """Mount a file system of a MiB; where only root may mount, yield a directory without a limit."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", str(directory)]
    is_mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield directory
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)


def filled(disk: Path) -> Path | None:
    """Fill a small disk to its last byte and return the file that does; None where it has no limit."""
    if os.statvfs(disk).f_blocks * os.statvfs(disk).f_frsize > SMALL_BYTES:
        return None
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert os.statvfs(disk).f_bavail == 0
    return ballast
