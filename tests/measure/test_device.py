import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import hpo
from hpo.errors import UsageError
from hpo.measure import device
from hpo.measure.device import cpu_model, environment, fingerprint, resolve, synchronize

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Fake GPU of {device}")
    monkeypatch.setattr(device, "driver_version", lambda: "570.86")


def test_cpu_is_always_there() -> None:
    assert resolve("cpu") == "cpu"


@pytest.mark.usefixtures("without_cuda")
def test_auto_falls_back_to_the_processor() -> None:
    assert resolve("auto") == "cpu"


@pytest.mark.usefixtures("with_cuda")
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_a_gpu_is_named_as_torch_names_it(asked: str) -> None:
    assert resolve(asked) == "cuda:0"


@pytest.mark.usefixtures("without_cuda")
def test_cuda_without_a_gpu_is_refused_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="'cuda' was asked for") as caught:
        resolve("cuda")
    assert "cpu or auto" in caught.value.hint


@pytest.mark.usefixtures("without_cuda")
@pytest.mark.parametrize(
    ("build", "why"), [(None, "has no CUDA in it"), ("12.8", "sees no CUDA device")], ids=["cpu", "cuda"]
)
def test_the_refusal_tells_a_torch_without_cuda_from_a_machine_without_gpu(
    build: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", build)
    with pytest.raises(UsageError, match=why):
        resolve("cuda")


def test_a_misspelt_device_is_refused_with_the_nearest_spelling() -> None:
    with pytest.raises(UsageError, match="unknown device 'cudaa'") as caught:
        resolve("cudaa")
    assert "did you mean 'cuda'?" in caught.value.hint


def test_the_cpu_fingerprint_names_processor_cores_threads_and_torch() -> None:
    line = fingerprint("cpu", 3)
    assert line == f"cpu: {cpu_model()} x{os.cpu_count()} threads=3 torch {torch.__version__}"
    assert line == fingerprint("cpu", 3)
    assert line != fingerprint("cpu", 1)


@pytest.mark.usefixtures("with_cuda")
def test_the_cuda_fingerprint_names_gpu_driver_and_the_processor_that_launches() -> None:
    line = fingerprint("cuda:0", 1)
    assert line.startswith("cuda: Fake GPU of cuda:0 driver 570.86 on ")
    assert cpu_model() in line
    assert line.endswith(f"torch {torch.__version__}")


def test_synchronize_waits_for_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    synchronize("cpu")
    synchronize("cuda:1")
    assert waited == ["cuda:1"]


def test_the_processor_name_is_read_from_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    listing = tmp_path_factory.mktemp("proc") / "cpuinfo"
    listing.write_text("processor\t: 0\nmodel name\t: Some  Maker 9000\nmodel name\t: Other\n")
    monkeypatch.setattr(device, "_CPUINFO", listing)
    assert cpu_model.__wrapped__() == "Some Maker 9000"


def test_a_machine_without_cpuinfo_still_has_a_processor_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(device, "_CPUINFO", tmp_path_factory.mktemp("proc") / "none")
    assert cpu_model.__wrapped__()


def test_the_environment_holds_versions_and_hardware_as_text() -> None:
    found = environment()
    assert found["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["compression-hpo"] == hpo.__version__
    assert found["memory"].endswith(" GiB")
    assert {"transformers", "os", "cpu", "cores", "gpus", "driver"} <= found.keys()
    assert all(isinstance(value, str) and value for value in found.values())


def test_the_environment_lists_each_gpu_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="Fake GPU", total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    assert environment()["gpus"] == "Fake GPU 80.0 GiB, Fake GPU 80.0 GiB"


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys, hpo.measure.device; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.cuda
@needs_cuda
def test_a_real_gpu_has_a_driver_and_a_name() -> None:
    line = fingerprint(resolve("cuda"), 1)
    assert torch.cuda.get_device_name(0) in line
    assert "driver none" not in line
