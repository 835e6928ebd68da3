import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.errors import ModelError, Unsupported
from hpo.models.source import Origin, check_source, nearby
from hpo.study import ModelSource


def directory_with(path: Path, *files: str, **config: object) -> ModelSource:
    path.mkdir(exist_ok=True)
    for name in files:
        (path / name).touch()
    if config:
        (path / "config.json").write_text(json.dumps(config))
    return ModelSource(source=str(path))


def refusal(source: ModelSource) -> ModelError:
    with pytest.raises(ModelError) as caught:
        check_source(source)
    return caught.value


def test_the_three_origins_are_told_apart(tmp_path: Path) -> None:
    local = directory_with(tmp_path / "model", "model.safetensors", model_type="llama")
    assert check_source(local) is Origin.DIRECTORY
    assert check_source(ModelSource(source="reference")) is Origin.REFERENCE
    assert check_source(ModelSource(source="gpt2")) is Origin.HUB
    assert check_source(ModelSource(source="Qwen/Qwen2.5-0.5B", revision="main")) is Origin.HUB


def test_a_directory_wins_over_a_hub_id_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory_with(tmp_path / "gpt2", "model.safetensors", model_type="gpt2")
    monkeypatch.chdir(tmp_path)
    assert check_source(ModelSource(source="gpt2")) is Origin.DIRECTORY


def test_a_missing_directory_names_its_neighbours_and_the_key(tmp_path: Path) -> None:
    directory_with(tmp_path / "stories260K")
    error = refusal(ModelSource(source=str(tmp_path / "stories260k")))
    assert error.where == ("model", "source")
    assert "did you mean 'stories260K'" in error.hint


def test_a_missing_path_far_below_names_the_first_part_that_is_missing(tmp_path: Path) -> None:
    assert nearby(tmp_path / "a" / "b" / "c") == f"{tmp_path} exists, 'a' in it does not"


@pytest.mark.parametrize("name", ["two words", "a/b/c", "/nowhere/model", "../none", "naïve/model"])
def test_what_is_neither_a_directory_nor_a_hub_id_is_refused(name: str) -> None:
    assert "there is no directory" in refusal(ModelSource(source=name)).message


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert "is a file" in refusal(ModelSource(source=str(tmp_path / "model.safetensors"))).message


def test_a_directory_without_configuration_is_refused(tmp_path: Path) -> None:
    assert "no config.json" in refusal(directory_with(tmp_path, "model.safetensors")).message


@pytest.mark.parametrize("text", ["{", "[1]", "\xff\xfe"])
def test_a_configuration_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    assert "is not" in refusal(directory_with(tmp_path, "model.safetensors")).message


def test_pickles_are_refused_with_the_way_to_convert_them(tmp_path: Path) -> None:
    error = refusal(directory_with(tmp_path, "pytorch_model.bin", model_type="gpt2"))
    assert "pytorch_model.bin" in error.message
    assert "save_pretrained" in error.hint


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    assert "no weights" in refusal(directory_with(tmp_path, model_type="gpt2")).message


def test_a_quantized_model_is_refused_with_its_method(tmp_path: Path) -> None:
    source = directory_with(
        tmp_path, "model.safetensors", model_type="llama", quantization_config={"quant_method": "gptq"}
    )
    assert "quantized already (gptq)" in refusal(source).message


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    source = directory_with(tmp_path, "model.safetensors", model_type="t5", is_encoder_decoder=True)
    assert "encoder-decoder (t5)" in refusal(source).message


def test_the_reference_model_needs_the_sources_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(Unsupported, match="no reference text"):
        check_source(ModelSource(source="reference"))


def test_checking_a_source_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, hpo.models.source, hpo.models.cache; "
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
