"""Small models, corpora and spaces for the tests of this room."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from hpo.compress.layer_plan import LayerPlan
from hpo.compress.plan import Change, PartPlan, Plan
from hpo.compress.surgery import linear_layers
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from hpo.study import ModelSource

VOCABULARY = 64
CONTEXT = 32


def llama(layers: int = 2, tied: bool = False) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.2,
            tie_word_embeddings=tied,
        )
    )


def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=CONTEXT, initializer_range=0.2, n_embd=32, n_layer=2, n_head=4
        )
    )


def neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            initializer_range=0.2,
        )
    )


def opt() -> PreTrainedModel:
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            word_embed_proj_dim=32,
            init_std=0.2,
        )
    )


def qwen2() -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            initializer_range=0.2,
        )
    )


FAMILIES = {"llama": llama, "gpt2": gpt2, "neox": neox, "opt": opt, "qwen2": qwen2}


def dense_model(family: str = "llama", digest: str | None = None) -> DenseModel:
    """Return a model with random weights; its digest names the family, so tests share a cache."""
    torch.manual_seed(0)
    module = FAMILIES[family]().eval().requires_grad_(False)
    return DenseModel(
        source=ModelSource(source=family),
        module=module,
        tokenizer=None,
        digest=digest or f"test-{family}",
        max_context=CONTEXT,
        directory=Path(family),
        commit=None,
    )


def weights(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the weight of every linear layer inside the blocks, as it is stored."""
    return [(name, model.get_parameter(f"{name}.weight")) for name, _ in linear_layers(model)]


def corpus(sequences: int = 8, seed: int = 0) -> Corpus:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, VOCABULARY, (sequences, CONTEXT), generator=generator)
    return Corpus(tuple(drawn), bytes=sequences * (CONTEXT - 1), digest=f"random-{sequences}-{seed}")


def logits(model: nn.Module) -> torch.Tensor:
    """Return the logits of one window, (T, V)."""
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=corpus(1, seed=9).sequences[0][None], use_cache=False).logits[0]
    return found


def by_hand(plan: Plan, layers: Sequence[LayerPlan], embedding: PartPlan | None = None) -> Plan:
    """Return what the only change of a plan would make of the layers or embedding if it were this."""
    (change,) = plan.changes
    view = Plan(plan.architecture, tuple(layers), embedding=embedding)
    changed = Change(change.stage, change.method, view)
    return Plan(plan.architecture, tuple(layers), (changed,), embedding=embedding)
