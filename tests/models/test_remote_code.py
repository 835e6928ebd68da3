"""Code that comes with a model runs for one commit of one repository, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import InvalidStudy, ModelError
from hpo.models import hub
from hpo.models.remote_code import check_code, trusted
from hpo.models.source import check_source
from hpo.study import ModelSource
from tests.models.test_source import directory_with

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TRUSTED = ModelSource(source="someone/tiny", revision=COMMIT, trust_remote_code=True)
PLAIN = ModelSource(source="someone/tiny")


@pytest.mark.parametrize("revision", [None, "main", "v1", COMMIT[:12], COMMIT.upper(), COMMIT + "\n"])
def test_trust_needs_the_full_hash_of_a_commit(revision: str | None) -> None:
    with pytest.raises(InvalidStudy, match="runs code of 'someone/tiny'") as caught:
        ModelSource(source="someone/tiny", revision=revision, trust_remote_code=True)
    assert "all 40 hexadecimal digits" in caught.value.hint
    assert caught.value.where[0] == "model"


def test_without_trust_a_tag_or_nothing_will_do() -> None:
    assert ModelSource(source="someone/tiny", revision="v1").revision == "v1"


def test_a_directory_and_the_reference_model_are_never_trusted(tmp_path: Path) -> None:
    place = directory_with(tmp_path / "model", "model.safetensors", model_type="llama").source
    for source in (place, "reference"):
        model = ModelSource(source=source, revision=COMMIT, trust_remote_code=True)
        with pytest.raises(ModelError, match="is no hub model"):
            check_source(model)


def _directory(tmp_path: Path, name: str = "config.json", **config: Any) -> Path:
    (tmp_path / name).write_text(json.dumps(config))
    return tmp_path


def test_code_beside_the_configuration_is_what_trust_is_for(tmp_path: Path) -> None:
    check_code(_directory(tmp_path, auto_map={"AutoConfig": "configuration_tiny.TinyConfig"}), TRUSTED)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("reference", ["other/repo--modeling.Tiny", "someone/tiny--modeling.Tiny"])
def test_code_of_another_repository_or_commit_is_refused(tmp_path: Path, name: str, reference: str) -> None:
    directory = _directory(tmp_path, name, auto_map={"AutoTokenizer": [None, reference]})
    with pytest.raises(ModelError, match=r"takes (its )?code from"):
        check_code(directory, TRUSTED)


@pytest.mark.parametrize("source", [PLAIN, TRUSTED])
def test_a_configuration_cannot_trust_on_its_own_behalf(tmp_path: Path, source: ModelSource) -> None:
    with pytest.raises(ModelError, match="sets trust_remote_code itself"):
        check_code(_directory(tmp_path, parts=[{"inner": {"trust_remote_code": True}}]), source)


def test_a_configuration_that_declines_trust_passes(tmp_path: Path) -> None:
    check_code(_directory(tmp_path, trust_remote_code=False), PLAIN)


def test_the_hub_must_have_the_commit_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_commit_on_hub", lambda source: "f" * 40)
    with pytest.raises(ModelError, match="not at the commit 0123"):
        hub.fetch(TRUSTED)


def test_what_code_a_study_lets_run_is_part_of_its_provenance() -> None:
    assert trusted(TRUSTED) == {"remote_code": f"someone/tiny@{COMMIT}"}
    assert trusted(PLAIN) == {}
