import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hpo.errors import HpoError
from hpo.models.cache import MANIFEST, Unwritable, build_once, cache_dir, faults
from tests.disks import SMALL_BYTES, filled, small_disk


def fill(directory: Path) -> None:
    (directory / "weights").write_bytes(b"0123456789")
    (directory / "inner").mkdir()
    (directory / "inner" / "notes").write_text("of a file below")


def refuse(directory: Path) -> None:
    raise AssertionError(f"{directory} is whole and must not be built again")


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    return build_once(tmp_path / "made" / "entry", fill)


def test_the_environment_moves_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "elsewhere"))
    assert cache_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("HPO_CACHE")
    assert cache_dir().name == "compression-hpo"


def test_a_built_entry_holds_what_was_built_and_a_manifest(entry: Path) -> None:
    assert (entry / "weights").read_bytes() == b"0123456789"
    assert (entry / "inner" / "notes").exists()
    assert (entry / MANIFEST).exists()
    assert faults(entry, checksums=True) == []


def test_a_whole_entry_is_not_built_again(entry: Path) -> None:
    assert build_once(entry, refuse) == entry


def test_a_missing_file_is_found_and_the_entry_built_again(entry: Path) -> None:
    (entry / "weights").unlink()
    assert faults(entry) == [f"{entry / 'weights'} is missing"]
    build_once(entry, fill)
    assert faults(entry, checksums=True) == []


def test_a_cut_file_is_found_and_the_entry_built_again(entry: Path) -> None:
    (entry / "weights").write_bytes(b"0123")
    assert faults(entry) == [f"{entry / 'weights'} has 4 bytes, not 10"]
    build_once(entry, fill)
    assert (entry / "weights").read_bytes() == b"0123456789"


def test_changed_contents_of_the_same_size_are_found_by_checksum_only(entry: Path) -> None:
    (entry / "weights").write_bytes(b"9876543210")
    assert faults(entry) == []
    assert faults(entry, checksums=True) == [f"{entry / 'weights'} has other contents than when it was built"]


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": 3}', '{"files": {"weights": {}}}', "\xff"])
def test_a_torn_manifest_means_building_again(entry: Path, manifest: str) -> None:
    (entry / MANIFEST).write_text(manifest, encoding="latin-1")
    assert len(faults(entry)) == 1
    build_once(entry, fill)
    assert faults(entry) == []


def test_a_directory_without_manifest_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry" / "leftover").touch()
    build_once(tmp_path / "entry", fill)
    assert not (tmp_path / "entry" / "leftover").exists()


def test_a_failed_build_leaves_nothing_and_its_error_passes_through(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        build_once(tmp_path / "entry", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["entry.lock"]


def test_a_failed_rebuild_keeps_the_damaged_entry_for_inspection(entry: Path) -> None:
    def fail(directory: Path) -> None:
        raise ValueError("half way")

    (entry / "weights").unlink()
    with pytest.raises(ValueError, match="half way"):
        build_once(entry, fail)
    assert (entry / "inner" / "notes").exists()


def test_a_cache_that_cannot_be_written_says_where_and_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HpoError, match="HPO_CACHE"):
        build_once(tmp_path / "file" / "entry", fill)


def test_a_full_disk_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    def no_space(directory: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(HpoError, match=r"No space left(.|\n)*HPO_CACHE"):
        build_once(tmp_path / "entry", no_space)


def test_tensors_on_a_full_disk_are_an_error_with_a_way_out_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(directory: Path) -> None:
        save_file({"weight": torch.zeros(SMALL_BYTES)}, directory / "weights.safetensors")

    with small_disk(tmp_path / "disk") as disk:
        if filled(disk) is None:  # what safetensors raises then
            error = SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
            monkeypatch.setattr(f"{__name__}.save_file", Mock(side_effect=error))
        (disk / "ballast").unlink(missing_ok=True)
        with pytest.raises(Unwritable, match=r"No space left(.|\n)*HPO_CACHE"):
            build_once(disk / "entry", save)
        assert [path.name for path in disk.iterdir()] == ["entry.lock"]
        assert build_once(disk / "entry", fill) == disk / "entry"


def test_tensors_that_a_build_cannot_read_are_an_error_of_its_own(tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    torn.write_bytes(b"torn")
    with pytest.raises(SafetensorError, match="header"):
        build_once(tmp_path / "entry", lambda directory: load_file(torn))


BUILDER = """
import sys, time
from pathlib import Path
from hpo.models.cache import build_once

def build(directory):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    (directory / "half").write_text("half")
    time.sleep(float(sys.argv[3]))
    (directory / "weights").write_text("whole")

print(build_once(Path(sys.argv[1]), build))
"""


def builder(entry: Path, log: Path, seconds: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(entry), str(log), str(seconds)])


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_two_processes_build_an_entry_once(tmp_path: Path) -> None:
    entry, log = tmp_path / "entry", tmp_path / "log"
    both = [builder(entry, log, 0.3) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert log.read_text() == "built\n"
    assert faults(entry, checksums=True) == []


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_killed_builder_leaves_no_entry_and_the_next_one_sweeps_up(tmp_path: Path) -> None:
    entry, log = tmp_path / "entry", tmp_path / "log"
    process = builder(entry, log, 600)
    wait_for(log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not entry.exists()
    assert len(list(tmp_path.glob(".entry.tmp-*"))) == 1
    build_once(entry, fill)
    assert faults(entry) == []
    assert list(tmp_path.glob(".entry.tmp-*")) == []
