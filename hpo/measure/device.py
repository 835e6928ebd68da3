"""Which device a study runs on, and the words that identify it beside every number measured there."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import psutil

import hpo
from hpo.errors import UsageError, did_you_mean
from hpo.measure.kernels import missing_kernels

DEVICES = ("auto", "cpu", "cuda")
_CPUINFO = Path("/proc/cpuinfo")


def resolve(device: str) -> str:
    """Return the torch name (``cpu`` or ``cuda:0``) of what a study calls ``auto``, ``cpu`` or ``cuda``.

    ``auto`` takes the first CUDA device this process may see, else the processor.

    Raises:
        UsageError: there is no such device, or ``cuda`` was asked for and torch sees none.
    """
    if device not in DEVICES:
        raise UsageError(f"unknown device {device!r}", did_you_mean(device, DEVICES))
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda:0"
    if device == "auto":
        return "cpu"
    why = "has no CUDA in it" if torch.version.cuda is None else "sees no CUDA device"
    raise UsageError(
        f"device 'cuda' was asked for, but torch {version('torch')} {why}",
        "use device cpu or auto, or look at `nvidia-smi`, CUDA_VISIBLE_DEVICES and the torch build",
    )


def fingerprint(device: str, threads: int) -> str:
    """Return what timings depend on, in one line; figures with different lines are not comparable.

    ``cpu: AMD EPYC x2 threads=1 torch 2.13.0`` or
    ``cuda: NVIDIA H100 80GB HBM3 driver 570.86 on AMD EPYC torch 2.13.0``: the processor is named
    for a GPU too, since it launches the kernels, and at batch 1 the launches often set the pace.
    `threads` is what torch uses inside one operation, for a processor only.
    """
    torch_version = f"torch {version('torch')}"
    if device == "cpu":
        without = "".join(f" without {name}" for name in missing_kernels(device))
        return f"cpu: {cpu_model()} x{os.cpu_count()} threads={threads} {torch_version}{without}"
    import torch

    name = torch.cuda.get_device_name(device)
    return f"cuda: {name} driver {driver_version()} on {cpu_model()} {torch_version}"


def synchronize(device: str) -> None:
    """Wait until everything queued on `device` is done; nothing is ever queued on a processor."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def environment() -> dict[str, str]:
    """Return the versions and hardware a study ran with, for its record and for `hpo doctor`."""
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "compression-hpo": hpo.__version__,
        "os": platform.platform(),
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": _gib(psutil.virtual_memory().total),
        "gpus": _gpus(),
        "driver": driver_version(),
        "missing kernels": "; ".join(f"{k}: {why}" for k, why in missing_kernels("cpu").items()) or "none",
    }


@cache
def cpu_model() -> str:
    """Return the processor's name as the system gives it, e.g. ``AMD EPYC 7763 64-Core Processor``."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown processor"


def driver_version() -> str:
    """Return the NVIDIA driver's version, ``none`` where there is no driver."""
    with nvml_session() as nvml:
        return "none" if nvml is None else str(nvml.nvmlSystemGetDriverVersion())


@contextmanager
def nvml_session() -> Iterator[ModuleType | None]:
    """Open NVIDIA's management library; None where its driver is missing. It needs no CUDA context."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{gpu.name} {_gib(gpu.total_memory)}" for gpu in found)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
