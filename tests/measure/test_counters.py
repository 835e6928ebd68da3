from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.measure import counters
from hpo.measure.counters import counter_available, nvml_counter, open_counter, rapl_counter


def add_domain(root: Path, name: str, label: str, energy_uj: int, range_uj: int = 1_000_000) -> Path:
    domain = root / name
    domain.mkdir(parents=True)
    (domain / "name").write_text(f"{label}\n")
    (domain / "energy_uj").write_text(f"{energy_uj}\n")
    (domain / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return domain


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages, with a part of one, the whole platform, and a driver's own directory beside them."""
    add_domain(tmp_path, "intel-rapl:0", "package-0", 100_000)
    add_domain(tmp_path, "intel-rapl:1", "package-1", 990_000)
    add_domain(tmp_path, "intel-rapl:0:0", "core", 50_000)
    add_domain(tmp_path, "intel-rapl:2", "psys", 70_000)
    add_domain(tmp_path, "intel-rapl", "package-9", 1)
    return tmp_path


def test_packages_are_counted_and_their_parts_and_the_platform_are_not(powercap: Path) -> None:
    counter = rapl_counter(powercap)
    assert counter is not None
    assert counter.read() == (100_000, 990_000)
    assert counter.name == "rapl"


def test_a_counter_that_wraps_between_two_readings_is_unwrapped(powercap: Path) -> None:
    counter = rapl_counter(powercap)
    assert counter is not None
    before = counter.read()
    (powercap / "intel-rapl:0" / "energy_uj").write_text("130000\n")
    (powercap / "intel-rapl:1" / "energy_uj").write_text("5000\n")  # 10,000 to the top, 5,000 from 0
    assert counter.spent_mj(before, counter.read()) == (30_000 + 15_000) / 1000


def test_no_packages_no_counter(tmp_path: Path) -> None:
    assert rapl_counter(tmp_path) is None
    assert rapl_counter(tmp_path / "none") is None
    add_domain(tmp_path, "intel-rapl:0", "psys", 1)
    assert rapl_counter(tmp_path) is None


def test_a_package_that_may_not_be_read_is_no_counter(
    powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(path)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert rapl_counter(powercap) is None


def test_the_processors_counter_is_named_without_running_anything(
    powercap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "RAPL_ROOT", powercap)
    assert counter_available("cpu") == "rapl"
    monkeypatch.setattr(counters, "RAPL_ROOT", powercap / "none")
    assert counter_available("cpu") is None


class FakeNvml:
    """NVIDIA's library with one GPU; `joules` it has used, or an error where it cannot tell."""

    class NVMLError(Exception):
        pass

    def __init__(self, uuid: str, millijoules: int | None) -> None:
        self.uuid = uuid
        self.millijoules = millijoules

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != f"GPU-{self.uuid}":
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        assert handle == "handle"
        if self.millijoules is None:
            raise self.NVMLError("Not Supported")
        return self.millijoules


def test_nvml_counts_millijoules_of_the_gpu_with_this_identity() -> None:
    nvml = FakeNvml("1234", 7_000)
    counter = nvml_counter(nvml, "1234")
    assert counter is not None
    before = counter.read()
    nvml.millijoules = 7_250
    assert counter.spent_mj(before, counter.read()) == 250.0
    assert counter.name == "nvml"


def test_a_gpu_without_an_energy_counter_has_none() -> None:
    assert nvml_counter(FakeNvml("1234", None), "1234") is None


def test_a_slice_of_a_gpu_that_nvml_does_not_know_as_one_has_none() -> None:
    assert nvml_counter(FakeNvml("1234", 7_000), "5678") is None


@pytest.mark.parametrize(("nvml", "name"), [(FakeNvml("1234", 1), "nvml"), (None, None)])
def test_a_gpus_counter_is_looked_up_by_the_identity_torch_gives(
    nvml: FakeNvml | None, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def session() -> Iterator[FakeNvml | None]:
        yield nvml

    monkeypatch.setattr(counters, "nvml_session", session)
    monkeypatch.setattr(counters, "_uuid", lambda device: "1234")
    assert counter_available("cuda:0") == name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_real_gpus_counter_never_runs_backwards() -> None:
    with open_counter("cuda:0") as counter:
        if counter is None:
            pytest.skip("this GPU has no energy counter")
        before = counter.read()
        assert counter.spent_mj(before, counter.read()) >= 0
