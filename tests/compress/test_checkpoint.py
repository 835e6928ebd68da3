"""A checkpoint file is whole or not there, says what it is of, and is never code."""

import json
import pickle
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from hpo.compress import checkpoint
from hpo.compress.snapshot import Misfit, Snapshot
from tests.disks import SMALL_BYTES, filled, small_disk

BASE = torch.arange(12.0)
SNAPSHOT = Snapshot(
    {
        "whole": BASE,
        "view/of it": BASE[2:8].reshape(2, 3).T,
        "half": torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        "number": torch.tensor(3.0),
        "nothing": torch.zeros(0, 4),
        "bytes": torch.arange(5, dtype=torch.uint8),
    },
    {"taken": 3, "lowest": float("inf"), "part": {"seen": [25, 0.1], "none": None}},
)


def is_same(first: Snapshot, second: Snapshot) -> bool:
    return first.facts == second.facts and all(
        torch.equal(first.tensors[name], second.tensors[name])
        and first.tensors[name].dtype == second.tensors[name].dtype
        for name in first.tensors.keys() | second.tensors.keys()
    )


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model" / "one.safetensors"
    checkpoint.write(path, SNAPSHOT, "a plan")
    found = checkpoint.read(path, "a plan")
    assert found is not None
    assert is_same(found, SNAPSHOT)
    assert [file.name for file in path.parent.iterdir()] == ["one.safetensors"]


def test_a_later_one_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    checkpoint.write(path, SNAPSHOT, "a plan")
    checkpoint.write(path, Snapshot({"a": BASE}, {"taken": 4}), "a plan")
    found = checkpoint.read(path, "a plan")
    assert found is not None
    assert found.facts == {"taken": 4}


def test_there_is_none_before_the_first(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path / "none.safetensors", "a plan") is None


def test_one_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    checkpoint.write(path, SNAPSHOT, "a plan")
    with pytest.raises(Misfit, match="of something else"):
        checkpoint.read(path, "another plan")


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(pickle.dumps({"taken": 3}))
    with pytest.raises(Misfit, match="no checkpoint"):
        checkpoint.read(path, "a plan")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), change=st.integers(0, 255))
def test_one_that_is_cut_or_changed_anywhere_is_refused_or_reads_the_same(
    tmp_path: Path, share: float, change: int
) -> None:
    path = tmp_path / "one.safetensors"
    checkpoint.write(path, SNAPSHOT, "a plan")
    content = bytearray(path.read_bytes())
    place = int(share * len(content))
    if change:
        content[place] ^= change
    else:
        del content[place:]
    path.unlink()
    path.write_bytes(content)
    try:
        found = checkpoint.read(path, "a plan")
    except Misfit:
        return
    assert found is not None
    assert is_same(found, SNAPSHOT)


def test_a_full_disk_leaves_the_earlier_one_and_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = Snapshot({"large": torch.zeros(SMALL_BYTES)}, {"taken": 4})
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "one.safetensors"
        checkpoint.write(path, SNAPSHOT, "a plan")
        if filled(disk) is None:
            refusal = SafetensorError("Error while serializing: I/O error: No space left on device")
            monkeypatch.setattr(checkpoint, "save_file", Mock(side_effect=refusal))
        with pytest.raises(OSError, match="No space left"):
            checkpoint.write(path, large, "a plan")
        found = checkpoint.read(path, "a plan")
        assert found is not None
        assert is_same(found, SNAPSHOT)
        assert {file.name for file in disk.iterdir()} <= {"one.safetensors", "ballast"}


# Snapshots


def test_parts_are_given_back_as_they_were() -> None:
    joined = Snapshot.joined(a=SNAPSHOT, ab=Snapshot.listed([BASE]), none=Snapshot())
    assert is_same(joined.part("a"), SNAPSHOT)
    assert is_same(joined.part("ab"), Snapshot({"0": BASE}))
    assert is_same(joined.part("none"), Snapshot())
    assert is_same(Snapshot.joined(outer=joined).part("outer").part("a"), SNAPSHOT)
    assert json.loads(json.dumps(dict(joined.facts)))["a"]["taken"] == 3
    with pytest.raises(Misfit, match="nothing of b"):
        joined.part("b")


@pytest.mark.parametrize(
    "wanted", [[BASE], [BASE, BASE, BASE], [BASE, BASE.reshape(3, 4)], [BASE, BASE.double()]]
)
def test_tensors_of_another_number_shape_or_type_do_not_fit(wanted: list[torch.Tensor]) -> None:
    held = Snapshot.listed([BASE, 2 * BASE])
    assert torch.equal(held.like([BASE, BASE])[1], 2 * BASE)
    with pytest.raises(Misfit, match="2 tensors of 24 numbers"):
        held.like(wanted)
