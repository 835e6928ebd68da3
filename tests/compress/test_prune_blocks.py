"""Whole blocks removed: what is left is the model without them, in a cache too."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DynamicCache,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from hpo.compress import prune_block_facts
from hpo.compress.applying import compressed, healed
from hpo.compress.layers import Skipped
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.prune_block_facts import BLOCK_FACTS
from hpo.compress.surgery import count_macs, replace, shared_copy
from hpo.deliver.export import merged
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from tests.compress import small
from tests.compress.narrowing import family, profiler
from tests.compress.pruning import FAMILIES, candidate, generated, pruned, written_by_full_forwards

BLOCKS = {"gpt2": "transformer.h", "opt": "model.decoder.layers", "neox": "gpt_neox.layers"}
"""Where the blocks are; elsewhere in most others."""


def block_path(name: str, number: int) -> str:
    return f"{BLOCKS.get(name, 'model.layers')}.{number}"


def deep_llama() -> PreTrainedModel:
    return small.llama(layers=4)


def sliding() -> PreTrainedModel:
    """A Qwen2 whose second block is the first of sliding attention."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=small.VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=small.CONTEXT,
            initializer_range=0.2,
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
        )
    )


def normed_after() -> PreTrainedModel:
    """An OPT whose norms stand after the sums, as that of 350 million parameters has them."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=small.VOCABULARY,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=small.CONTEXT,
            word_embed_proj_dim=32,
            do_layer_norm_before=False,
        )
    )


@pytest.fixture(autouse=True)
def more_families(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (deep_llama, sliding, normed_after):
        monkeypatch.setitem(small.FAMILIES, make.__name__, make)


def facts_of(dense: DenseModel) -> dict[str, list[float]]:
    base = profiler(dense)
    (piece,) = BLOCK_FACTS.prepare(dense.module, base.architecture, base.statistics)
    return {name: values.tolist() for name, values in piece.arrays.items()}


def removed_blocks(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Skipped)]


def test_the_logits_are_those_of_a_model_that_never_had_the_blocks() -> None:
    dense = family("deep_llama")
    plan, model = pruned(dense, "drop_blocks", blocks=2)
    gone = {int(name.rpartition(".")[2]) for name in removed_blocks(model)}
    assert len(gone) == 2
    assert 0 not in gone
    shallow: Any = small.llama(layers=2).eval()
    shallow.load_state_dict(dense.module.state_dict(), strict=False)
    theirs: Any = dense.module
    for number, old in enumerate(sorted({0, 1, 2, 3} - gone)):
        shallow.model.layers[number].load_state_dict(theirs.model.layers[old].state_dict())
    assert torch.equal(small.logits(model), small.logits(shallow))
    assert plan.parameters == sum(p.numel() for p in shallow.parameters())
    assert plan.prefill_macs == count_macs(shallow, small.CONTEXT)


@pytest.mark.parametrize("name", [*FAMILIES, "phi3"])
def test_plans_are_exact_and_the_dense_form_computes_the_same(name: str) -> None:
    dense = family(name)
    plan, model = pruned(dense, "drop_blocks", blocks=1)
    assert removed_blocks(model) == [block_path(name, 1)]
    held, before = Held.by(model), Held.by(dense.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - before.buffer_bytes == plan.weight_bytes
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs
    whole = merged(model, dense.module)
    assert torch.equal(small.logits(whole), small.logits(model))
    assert set(whole.state_dict()) == set(dense.module.state_dict())


@pytest.mark.parametrize("name", [*FAMILIES, "phi3", "deep_llama", "sliding"])
def test_generation_with_a_cache_says_what_full_forwards_say(name: str) -> None:
    _, model = pruned(family(name), "drop_blocks", blocks=1)
    assert generated(model, cached=True) == generated(model, cached=False) == written_by_full_forwards(model)


def test_without_its_first_block_a_model_loses_count_of_its_cache() -> None:
    """Why that block always stays: `get_seq_length` looks at the first layer alone."""
    dense = family("deep_llama")
    model: Any = shared_copy(dense.module)
    replace(model, "model.layers.0", Skipped())
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=small.corpus(1).sequences[0][None, :6], past_key_values=cache, use_cache=True)
    assert [cache.get_seq_length(layer) for layer in range(4)] == [0, 6, 6, 6]
    assert cache.get_seq_length() == 0
    assert facts_of(dense)["stays"] == [1, 0, 0, 0]


def test_the_first_block_of_each_kind_of_attention_stays() -> None:
    assert facts_of(family("sliding"))["stays"] == [1, 1, 0, 0]
    with pytest.raises(Unsupported, match="of 4 blocks 2 may go"):
        pruned(family("sliding"), "drop_blocks", blocks=3)


def test_what_a_block_holds_and_computes_beside_its_layers_is_worked_by_hand() -> None:
    found = facts_of(family("llama"))
    # Two norms of 32; four heads of eight dimensions, with keys and with values.
    assert found["number"] == [0, 1]
    assert found["parameters"] == [64, 64]
    assert found["bytes"] == [256, 256]
    assert found["scores"] == [2 * 4 * 8] * 2
    assert found["macs"] == [0, 0]
    # Besides two norms with offsets: biases of 96 + 32 in the attention and of 128 + 32 in the MLP.
    assert facts_of(family("gpt2"))["parameters"] == [2 * 64 + 96 + 32 + 128 + 32] * 2


def test_a_block_whose_sum_is_normed_cannot_be_left_out_and_is_named() -> None:
    dense = family("normed_after")
    found = facts_of(dense)
    assert found["stays"] == [1, 1]
    assert "model.decoder.layers.1@OPTDecoderLayer" in found
    with pytest.raises(Unsupported, match=r"0 may go[\s\S]*OPTDecoderLayer cannot be skipped"):
        pruned(dense, "drop_blocks", blocks=1)


def test_a_block_whose_operations_grow_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = family("llama")
    base = profiler(dense)
    architecture, statistics = base.architecture, base.statistics
    monkeypatch.setattr(
        prune_block_facts,
        "count_macs",
        lambda model, tokens: 0 if removed_blocks(model) else 7680 * tokens + tokens**3,
    )
    with pytest.raises(Unsupported, match=r"the operations of model\.layers\.0 are \[15368, "):
        list(BLOCK_FACTS.prepare(dense.module, architecture, statistics))


def test_adapters_train_the_blocks_that_stay_and_factors_have_nothing_to_train() -> None:
    dense = family("deep_llama")
    base = profiler(dense)
    for heal, trains in (("lora", True), ("loretta", True), ("fine_tune", False)):
        more = {"heal": heal, "heal.steps": 3, "heal.learning_rate": 1e-2}
        asked = candidate("drop_blocks", more, blocks=2)
        plan = plan_of(base.profile(preparations_of(asked)), asked)
        model = compressed(base, asked, plan)
        outcome = healed(base, asked, plan, model)
        assert outcome is not None
        assert (outcome.steps > 0) == trains
        assert (outcome.after != outcome.before) == trains
        assert Held.by(model).parameters == plan.parameters


def test_an_adapter_that_stays_is_not_put_on_what_is_gone() -> None:
    dense = family("deep_llama")
    base = profiler(dense)
    more = {"heal": "lora", "heal.adapter": "kept", "heal.steps": 2, "heal.rank": 2}
    asked = candidate("drop_blocks", {**more, "factorise": "svd", "factorise.keep_ratio": 0.6}, blocks=1)
    plan = plan_of(base.profile(preparations_of(asked)), asked)
    model = compressed(base, asked, plan)
    healed(base, asked, plan, model)
    assert Held.by(model).parameters == plan.parameters


@pytest.mark.parametrize("loss", ["distil", "hidden", "local"])
def test_every_loss_looks_through_what_is_skipped(loss: str) -> None:
    base = profiler(family("deep_llama"))
    more = {"heal": "distil", "heal.loss": loss, "heal.steps": 2, "factorise": "svd"}
    asked = candidate("drop_blocks", {**more, "factorise.keep_ratio": 0.6}, blocks=1)
    plan = plan_of(base.profile(preparations_of(asked)), asked)
    outcome = healed(base, asked, plan, compressed(base, asked, plan))
    assert outcome is not None
    assert outcome.steps == 2
