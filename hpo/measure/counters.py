"""Energy counters of the hardware: NVIDIA's total-energy counter, and RAPL of Intel and AMD processors.

A counter is read before and after; the difference is everything the device spent meanwhile, idle
power and other processes included. Nothing here needs torch until a CUDA device has to be named.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpo.measure.device import nvml_session

RAPL_ROOT = Path("/sys/class/powercap")


class Counter(Protocol):
    """Counts energy, in µJ, one number a domain (a processor package, a GPU)."""

    name: str
    """``nvml`` or ``rapl``."""

    def read(self) -> tuple[int, ...]: ...

    def spent_mj(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Return the energy between two readings, in mJ, over all domains."""
        ...


@dataclass(frozen=True)
class RaplCounter:
    """The packages of a processor, by the kernel's powercap files.

    A package's counter wraps at `ranges`, after some minutes under load; one wrap between two readings
    is undone, a second would go unseen. DRAM is in no package and is not counted.
    """

    packages: tuple[Path, ...]
    ranges: tuple[int, ...]
    """The counter's largest value, in µJ, for each package."""
    name = "rapl"

    def read(self) -> tuple[int, ...]:
        return tuple(_integer(package / "energy_uj") for package in self.packages)

    def spent_mj(self, before: Sequence[int], after: Sequence[int]) -> float:
        pairs = zip(before, after, self.ranges, strict=True)
        return sum((b - a) if b >= a else (b - a + wrap) for a, b, wrap in pairs) / 1e3


@dataclass(frozen=True)
class NvmlCounter:
    """The total energy of one GPU since its driver was loaded (Volta and newer), in steps of mJ.

    It moves every 20 to 100 ms, and on some GPUs the sensor behind it looks a quarter of the time
    (arXiv:2312.02741), so only windows of seconds mean anything.
    """

    nvml: Any
    """The `pynvml` module, its library open."""
    handle: Any
    name = "nvml"

    def read(self) -> tuple[int, ...]:
        return (int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)) * 1000,)

    def spent_mj(self, before: Sequence[int], after: Sequence[int]) -> float:
        return (after[0] - before[0]) / 1e3


@contextmanager
def open_counter(device: str) -> Iterator[Counter | None]:
    """Open the energy counter of `device` (``cpu`` or ``cuda:0``); None where there is none to read."""
    if device == "cpu":
        yield rapl_counter(RAPL_ROOT)
        return
    with nvml_session() as nvml:
        yield None if nvml is None else nvml_counter(nvml, _uuid(device))


def counter_available(device: str) -> str | None:
    """Return the name of the energy counter of `device`, ``nvml`` or ``rapl``; None where there is none.

    Reads it once and runs nothing, so that a study can be checked before its first trial.
    """
    with open_counter(device) as counter:
        return None if counter is None else counter.name


def rapl_counter(root: Path) -> RaplCounter | None:
    """Return the counter of all packages under `root`; None if there is none or it may not be read."""
    # Names with one colon are whole domains; intel-rapl:0:0 is a part of intel-rapl:0.
    domains = sorted(path for path in root.glob("intel-rapl:*") if path.name.count(":") == 1)
    try:
        packages = tuple(path for path in domains if (path / "name").read_text().startswith("package"))
        ranges = tuple(_integer(path / "max_energy_range_uj") for path in packages)
        counter = RaplCounter(packages, ranges)
        counter.read()
    except OSError:  # for root alone since CVE-2020-8694, or hidden from a container
        return None
    return counter if packages else None


def nvml_counter(nvml: Any, uuid: str) -> NvmlCounter | None:
    """Return the counter of the GPU called `uuid`; None if it is too old, or a slice of a GPU (MIG)."""
    try:
        counter = NvmlCounter(nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        counter.read()
    except nvml.NVMLError:
        return None
    return counter


def _uuid(device: str) -> str:
    """Return the GPU's identity: NVML counts all GPUs, torch those that CUDA_VISIBLE_DEVICES leaves."""
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def _integer(path: Path) -> int:
    return int(path.read_text())
