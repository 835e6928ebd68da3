"""The registry: what is in it, what others may add, and how a missing package is told apart from a fault."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hpo import registry
from hpo.errors import NotFound, Unsupported

KINDS: tuple[registry.Kind, ...] = ("sampler", "method", "probe", "runner")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Let a stranger's distribution add entries; return the folder its modules are in."""
    points = {
        "mine": "hpo_stranger:Mine",
        "lacking": "hpo_stranger_lacking:Mine",
        "broken": "hpo.no_such_module:Mine",
        "sobol": "hpo_stranger:Mine",
    }

    def entry_points(group: str) -> list[EntryPoint]:
        if group != "compression_hpo.sampler":
            return []
        return [EntryPoint(name, value, group) for name, value in points.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.syspath_prepend(tmp_path)
    registry._targets.cache_clear()
    yield tmp_path
    registry._targets.cache_clear()
    for name in [name for name in sys.modules if name.startswith("hpo_stranger")]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_the_names_of_a_kind_are_sorted_and_there_are_some(kind: registry.Kind) -> None:
    names = registry.names(kind)
    assert names
    assert list(names) == sorted(set(names))


def test_an_entry_is_loaded_by_name() -> None:
    assert registry.load("runner", "in_process").__name__ == "InProcessRunner"


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_refused_with_what_is_allowed(kind: registry.Kind) -> None:
    with pytest.raises(NotFound, match=f"unknown {kind} 'zzz'") as caught:
        registry.load(kind, "zzz")
    assert caught.value.hint == "allowed: " + ", ".join(registry.names(kind))


def test_a_misspelt_name_is_refused_with_the_nearest_spelling() -> None:
    with pytest.raises(NotFound) as caught:
        registry.load("sampler", "bayesan")
    assert caught.value.hint.startswith("did you mean 'bayesian'?")


def test_a_strangers_entry_is_named_and_loaded_but_imported_only_then(added: Path) -> None:
    (added / "hpo_stranger.py").write_text("class Mine: pass\n")
    assert "mine" in registry.names("sampler")
    assert "hpo_stranger" not in sys.modules
    assert registry.load("sampler", "mine").__module__ == "hpo_stranger"


def test_a_stranger_cannot_replace_an_entry_of_ours(added: Path) -> None:
    assert registry.load("sampler", "sobol").__module__ == "hpo.search.sobol"


def test_an_entry_whose_package_is_missing_names_the_package(added: Path) -> None:
    (added / "hpo_stranger_lacking.py").write_text("import a_package_nobody_has\n")
    with pytest.raises(Unsupported, match="the sampler 'lacking' needs a package") as caught:
        registry.load("sampler", "lacking")
    assert "install a_package_nobody_has" in caught.value.hint


def test_a_module_of_ours_that_is_missing_is_a_fault_and_not_a_missing_package(added: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"hpo\.no_such_module"):
        registry.load("sampler", "broken")
