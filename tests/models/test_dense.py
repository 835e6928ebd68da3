import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, LlamaConfig, LlamaModel

from hpo.errors import InvalidStudy, ModelError, NonFinite
from hpo.models.dense import DenseModel, load_model
from hpo.study import ModelSource
from tests.models.tiny import POSITIONS, configs, save, tiny_model


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save(tiny_model(configs()["llama"]), tmp_path / "llama")


def load(directory: Path, dtype: str | None = None) -> DenseModel:
    return load_model(ModelSource.model_validate({"source": str(directory), "dtype": dtype}))


def refusal(directory: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(directory)
    return caught.value


@pytest.mark.parametrize("family", configs())
def test_every_family_loads_with_the_weights_it_was_saved_with(family: str, tmp_path: Path) -> None:
    saved = tiny_model(configs()[family])
    dense = load(save(saved, tmp_path / family))
    ids = torch.arange(10)[None]
    assert torch.equal(dense.module(ids).logits, saved(ids).logits)
    assert not dense.module.training
    assert not any(p.requires_grad for p in dense.module.parameters())
    assert dense.context == dense.max_context == POSITIONS
    assert dense.tokenizer("ab")["input_ids"] == [97, 98]
    assert dense.directory == tmp_path / family
    assert dense.commit is None


def test_tied_embeddings_stay_tied_and_untied_ones_untied(tmp_path: Path) -> None:
    for family, tied in (("llama_tied", True), ("llama", False), ("gpt2", True)):
        module = load(save(tiny_model(configs()[family]), tmp_path / family)).module
        same = module.get_input_embeddings().weight is module.get_output_embeddings().weight  # type: ignore[operator]  # methods of transformers
        assert same is tied


def test_the_reference_model_loads(reference: DenseModel) -> None:
    assert reference.context == 128
    assert reference.directory.name.startswith("reference-")


def test_precision_is_as_stored_unless_asked_for(llama: Path, tmp_path: Path) -> None:
    half = save(tiny_model(configs()["llama"]).to(torch.bfloat16), tmp_path / "half")
    assert next(load(llama).module.parameters()).dtype is torch.float32
    assert next(load(half).module.parameters()).dtype is torch.bfloat16
    assert next(load(half, "float32").module.parameters()).dtype is torch.float32


def test_the_digest_follows_weights_configuration_and_precision_not_the_place(
    llama: Path, tmp_path: Path
) -> None:
    digest = load(llama).digest
    model = tiny_model(configs()["llama"])
    assert load(save(model, tmp_path / "copy")).digest == digest
    assert load(llama, "bfloat16").digest != digest
    with torch.no_grad():
        next(model.parameters())[0, 0] += 1
    assert load(save(model, tmp_path / "changed")).digest != digest
    model = tiny_model(configs()["llama"])
    model.config.rms_norm_eps = 1e-3
    assert load(save(model, tmp_path / "other")).digest != digest


def test_the_context_is_2048_where_the_model_reads_more(tmp_path: Path) -> None:
    config = configs()["llama"]
    config.max_position_embeddings = 8192
    dense = load(save(tiny_model(config), tmp_path / "long"))
    assert (dense.context, dense.max_context) == (2048, 8192)
    assert dense.window(None) == 2048
    assert dense.window(4096) == 4096


def test_a_window_beyond_the_model_is_refused_at_its_key(llama: Path) -> None:
    with pytest.raises(InvalidStudy, match="reads 64 tokens") as caught:
        load(llama).window(65)
    assert caught.value.where == ("data", "context")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(value: float, llama: Path) -> None:
    weights = load_file(llama / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][2, 3] = value
    save_file(weights, llama / "model.safetensors", {"format": "pt"})
    with pytest.raises(NonFinite, match=r"1 of 1536 values of 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load(llama)


def test_weights_without_an_output_layer_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save(LlamaModel(configs()["llama"]), tmp_path / "base")
    error = refusal(tmp_path / "base")
    assert "lm_head.weight" in error.message
    assert "random" in error.message


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, vocab_size=256,
        is_decoder=True,
    )  # fmt: skip
    directory = save(BertLMHeadModel(config), tmp_path / "bert")
    saved = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**saved, "is_decoder": False}))
    assert "looks at tokens ahead" in refusal(directory).message


def test_a_model_type_that_is_no_language_model_is_refused(llama: Path) -> None:
    (llama / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert "cannot be loaded" in refusal(llama).message


def test_truncated_weights_are_refused(llama: Path) -> None:
    weights = llama / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "cannot be loaded" in refusal(llama).message


def test_weights_of_other_shapes_are_refused(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    assert "cannot be loaded" in refusal(llama).message


def test_a_directory_without_tokenizer_is_refused(llama: Path) -> None:
    (llama / "tokenizer.json").unlink()
    (llama / "tokenizer_config.json").unlink()
    assert "the tokenizer in" in refusal(llama).message


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    config = configs()["llama"]
    config.vocab_size = 100
    directory = save(tiny_model(config), tmp_path / "small")
    assert "256 tokens, the model 100" in refusal(directory).message


def test_code_that_comes_with_a_model_is_not_run(llama: Path, tmp_path: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (llama / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    (llama / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass OwnConfig: ...\n")
    assert "trust_remote_code" in refusal(llama).hint
    assert not (tmp_path / "ran").exists()


def test_pickles_beside_safetensors_are_never_read(llama: Path) -> None:
    (llama / "pytorch_model.bin").write_bytes(b"this would not even unpickle")
    load(llama)


def test_loading_writes_nothing_to_the_terminal(llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(llama)
    assert capfd.readouterr() == ("", "")


def test_configurations_are_small_enough_to_test_with() -> None:
    assert isinstance(configs()["llama"], LlamaConfig)
    assert sum(p.numel() for p in tiny_model(configs()["llama"]).parameters()) < 50_000
