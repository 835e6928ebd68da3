import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from hpo.errors import ModelError
from hpo.models import hub
from hpo.models.dense import load_model
from hpo.study import ModelSource
from tests.models.tiny import configs, save, tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/tiny"


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the hub's cache, empty, and take the network away."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def cached(hub_cache: Path) -> Path:
    """Put a model into the hub's cache as a download would, and return its snapshot."""
    repository = hub_cache / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    return save(tiny_model(configs()["llama_tied"]), repository / "snapshots" / COMMIT)


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "_PATIENCE_S", 0.1)
        yield


def test_a_cached_model_loads_without_network_and_knows_its_commit(cached: Path) -> None:
    dense = load_model(ModelSource(source=NAME))
    assert dense.commit == COMMIT
    assert dense.directory == cached
    assert load_model(ModelSource(source=NAME, revision=COMMIT)).digest == dense.digest


def test_a_model_that_is_not_cached_is_refused_without_network(hub_cache: Path) -> None:
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        load_model(ModelSource(source=NAME))
    assert caught.value.where == ("model", "source")
    assert f"hf download {NAME}" in caught.value.hint


@pytest.mark.usefixtures("silent_hub")
def test_a_hub_that_does_not_answer_is_not_waited_for(cached: Path) -> None:
    assert load_model(ModelSource(source=NAME)).commit == COMMIT
    with pytest.raises(ModelError, match="cannot be reached"):
        load_model(ModelSource(source="someone/else"))


def test_a_cached_model_is_checked_like_a_directory(cached: Path) -> None:
    (cached / "model.safetensors").rename(cached / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickles"):
        load_model(ModelSource(source=NAME))


@pytest.mark.parametrize(
    ("kind", "words", "key"),
    [
        (GatedRepoError, "is gated", "source"),
        (RepositoryNotFoundError, "is not on the hub", "source"),
        (RevisionNotFoundError, "has no revision 'v9'", "revision"),
    ],
)
def test_what_the_hub_refuses_is_said_at_its_key(
    kind: type[Exception], words: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise kind.__new__(kind)

    monkeypatch.setattr(HfApi, "model_info", refuse)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(ModelSource(source=NAME, revision="v9"))
    assert caught.value.where == ("model", key)


def test_only_what_is_needed_is_asked_for_and_code_only_when_trusted(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def snapshot(name: str, allow_patterns: list[str], **named: object) -> str:
        asked.append(allow_patterns)
        return str(cached)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    hub.fetch(ModelSource(source=NAME))
    hub.fetch(ModelSource(source=NAME, revision=COMMIT, trust_remote_code=True))
    assert "*.py" not in asked[0]
    assert "*.bin" not in asked[0]
    assert "*.py" in asked[1]
