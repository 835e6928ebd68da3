"""Cache entries that machines share: fetched where another has built them, refused where not whole."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from hpo.errors import UsageError
from hpo.models.cache import MANIFEST, build_once, cache_dir, faults, fetched
from hpo.models.shared_files import SHARED, SharedFiles, for_workers

On = Callable[[str], Path]
"""Be on a machine, by its name; returns where the entry lies there."""


def fill(directory: Path) -> None:
    (directory / "weights").write_bytes(b"0123456789")
    (directory / "inner").mkdir()
    (directory / "inner" / "notes").write_text("of a file below")


def fill_otherwise(directory: Path) -> None:
    (directory / "weights").write_bytes(b"9876543210")


def refuse(directory: Path) -> None:
    raise AssertionError(f"{directory} was built here although another machine has it")


@pytest.fixture(params=["directory", "memory"])
def on(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[On]:
    """Two caches, as of two machines, and a place that they share."""
    place = str(tmp_path / "shared") if request.param == "directory" else f"memory://{tmp_path.name}"
    monkeypatch.setenv(SHARED, place)

    def machine(name: str) -> Path:
        monkeypatch.setenv("HPO_CACHE", str(tmp_path / name))
        return cache_dir() / "factors" / "key" / "plain"

    yield machine
    memory = fsspec.filesystem("memory")
    if request.param == "memory" and memory.exists(f"/{tmp_path.name}"):
        memory.rm(f"/{tmp_path.name}", recursive=True)


def objects() -> list[str]:
    files = SharedFiles.named(os.environ[SHARED])
    return [str(path) for path in files.system.find(f"{files.root}/objects")]


def spoil(path: str, content: bytes) -> None:
    SharedFiles.named(os.environ[SHARED]).system.pipe_file(path, content)


def holding(content: bytes) -> str:
    system = SharedFiles.named(os.environ[SHARED]).system
    return next(path for path in objects() if system.cat_file(path) == content)


def test_what_one_machine_has_built_another_fetches(on: On) -> None:
    build_once(on("one"), fill)
    entry = build_once(on("two"), refuse)
    assert (entry / "weights").read_bytes() == b"0123456789"
    assert (entry / "inner" / "notes").read_text() == "of a file below"
    assert faults(entry, checksums=True) == []


def test_an_entry_may_be_looked_for_without_building_it(on: On) -> None:
    assert not fetched(on("two"))
    assert not on("two").exists()
    build_once(on("one"), fill)
    assert fetched(on("two"))
    assert faults(on("two"), checksums=True) == []


@pytest.mark.parametrize("content", [b"0123", b"0123456780", b""], ids=["torn", "changed", "empty"])
def test_a_copy_that_is_not_whole_is_refused_built_again_and_put_right(
    on: On, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    build_once(on("one"), fill)
    spoil(holding(b"0123456789"), content)
    built: list[Path] = []

    def again(directory: Path) -> None:
        built.append(directory)
        fill(directory)

    with caplog.at_level(logging.WARNING):
        entry = build_once(on("two"), again)
    assert len(built) == 1
    assert "is not what its name says" in caplog.text
    assert (entry / "weights").read_bytes() == b"0123456789"
    assert faults(build_once(on("three"), refuse), checksums=True) == []


def test_an_entry_whose_objects_are_gone_is_built_again(on: On) -> None:
    build_once(on("one"), fill)
    SharedFiles.named(os.environ[SHARED]).system.rm_file(holding(b"0123456789"))
    build_once(on("two"), fill)
    assert faults(build_once(on("three"), refuse), checksums=True) == []


def test_machines_that_build_one_entry_differently_leave_one_of_the_two_whole(on: On) -> None:
    """As when both begin before either has ended: the objects of both stay, the names of the last do."""
    files = SharedFiles.named(os.environ[SHARED])
    one = build_once(on("one"), fill)
    files.system.rm_file(f"{files.root}/entries/factors/key/plain.json")
    build_once(on("two"), fill_otherwise)
    entry = build_once(on("three"), refuse)
    assert (entry / "weights").read_bytes() == b"9876543210"
    assert (one / "weights").read_bytes() == b"0123456789"
    assert len(objects()) == 3


@pytest.mark.parametrize("name", ["../outside", "/outside", "inner/../../outside", "", "..\\outside"])
def test_a_name_that_leads_out_of_the_entry_is_refused(on: On, name: str) -> None:
    build_once(on("one"), fill)
    files = SharedFiles.named(os.environ[SHARED])
    path = f"{files.root}/entries/factors/key/plain.json"
    listed = json.loads(files.system.cat_file(path))
    spoil(path, json.dumps({name: listed["weights"]}).encode())
    assert not fetched(on("two"))
    assert [p.name for p in cache_dir().rglob("outside")] == []
    build_once(on("two"), fill)
    assert faults(on("two"), checksums=True) == []


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b'{"weights": {"bytes": 1, "sha256": "../../x"}}', b'{"a": 1}']
)
def test_a_list_of_files_that_makes_no_sense_is_as_good_as_none(on: On, text: bytes) -> None:
    build_once(on("one"), fill)
    files = SharedFiles.named(os.environ[SHARED])
    spoil(f"{files.root}/entries/factors/key/plain.json", text)
    build_once(on("two"), fill)
    assert (on("two") / MANIFEST).exists()


def test_without_a_shared_place_nothing_leaves_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SHARED, raising=False)
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "one"))
    build_once(cache_dir() / "entry", fill)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_shared_place_that_cannot_be_written_costs_the_sharing_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv(SHARED, str(tmp_path / "file" / "below"))
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "one"))
    with caplog.at_level(logging.WARNING):
        entry = build_once(cache_dir() / "entry", fill)
    assert faults(entry, checksums=True) == []
    assert "cannot be shared" in caplog.text


def test_an_entry_outside_the_cache_is_not_shared(on: On, tmp_path: Path) -> None:
    on("one")
    build_once(tmp_path / "elsewhere" / "entry", fill)
    assert objects() == []


def test_a_kind_of_place_that_nobody_knows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="HPO_SHARED is 'nowhere://bucket'") as caught:
        SharedFiles.named("nowhere://bucket")
    assert "s3://bucket/prefix" in caught.value.hint


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("", {}),
        ("s3://bucket/models", {SHARED: "s3://bucket/models"}),
        ("/mnt/all", {SHARED: "/mnt/all"}),
        ("s3://key:sesame@bucket/models", {}),
        ("https://store.example/models?signature=sesame", {}),
    ],
)
def test_workers_are_told_of_the_place_but_of_no_secret(
    monkeypatch: pytest.MonkeyPatch, place: str, told: dict[str, str]
) -> None:
    monkeypatch.setenv(SHARED, place)
    assert for_workers() == told
