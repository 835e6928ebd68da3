"""A model's directory that travels: checked, once, and only what a model needs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.errors import ModelError
from hpo.models.cache import cache_dir, faults
from hpo.models.shipped import Read, ShippedModel


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    directory = tmp_path / "model"
    directory.mkdir()
    for name, content in {
        "config.json": "{}",
        "model.safetensors": "weights",
        "tokenizer.json": "[]",
        "pytorch_model.bin": "a pickle",
        "modeling_own.py": "code",
    }.items():
        (directory / name).write_text(content)
    return directory


def elsewhere(shipped: ShippedModel) -> ShippedModel:
    """Return what another machine is told, which has no such directory."""
    return ShippedModel("/nowhere/model", shipped.files)


def reading(directory: Path, asked: list[str]) -> Read:
    def read(name: str) -> Iterator[bytes]:
        asked.append(name)
        content = (directory / name).read_bytes()
        yield content[:2]
        yield content[2:]

    return read


def test_weights_configuration_and_tokenizer_travel_and_no_pickle_and_no_code(model: Path) -> None:
    assert sorted(ShippedModel.of(model).files) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_where_the_directory_is_nothing_travels(model: Path) -> None:
    asked: list[str] = []
    assert ShippedModel.of(model).place(reading(model, asked)) == model
    assert asked == []


def test_a_model_comes_once_and_lies_by_its_content(model: Path) -> None:
    shipped, asked = elsewhere(ShippedModel.of(model)), list[str]()
    placed = shipped.place(reading(model, asked))
    assert placed == cache_dir() / "models" / shipped.digest
    assert (placed / "model.safetensors").read_text() == "weights"
    assert faults(placed, checksums=True) == []
    assert shipped.place(reading(model, asked)) == placed
    assert sorted(asked) == sorted(shipped.files)


def test_another_model_at_the_same_path_is_not_taken_for_it(model: Path) -> None:
    shipped = ShippedModel.of(model)
    copy = {name: (model / name).read_bytes() for name in shipped.files}
    (model / "model.safetensors").write_text("WEIGHTS")

    def read(name: str) -> Iterator[bytes]:
        yield copy[name]

    placed = shipped.place(read)
    assert placed != model
    assert (placed / "model.safetensors").read_text() == "weights"


def test_a_file_that_changes_on_its_way_is_refused(model: Path) -> None:
    shipped = elsewhere(ShippedModel.of(model))
    with pytest.raises(ModelError, match=r"config\.json of the model came as"):
        shipped.place(lambda name: iter([b"changed"]))
    assert not (cache_dir() / "models" / shipped.digest).exists()
