"""Tiny random models to measure: a Llama of 2 layers, and one whose blocks are half as wide inside."""

from typing import cast

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from hpo.measure.memory import Held
from hpo.measure.probe import Cost, Subject
from hpo.models.text import Corpus

CONTEXT = 16


def tiny_llama(inner: int = 64, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a random Llama, hidden size 32, 2 layers, vocabulary 64, tied embeddings."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=64,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return cast(nn.Module, LlamaForCausalLM(config).to(dtype).eval())


def true_cost(model: nn.Module, prefill_macs: int = 1_000_000) -> Cost:
    """Return the cost that a truthful plan would state; the MACs are whatever is given."""
    held = Held.by(model)
    return Cost(held.parameters, held.parameter_bytes, prefill_macs)


def subject(
    model: nn.Module,
    dense: nn.Module | None = None,
    *,
    cost: Cost | None = None,
    context: int = CONTEXT,
    repeats: int = 5,
    allow_modelled: bool = False,
    device: str = "cpu",
) -> Subject:
    """Return a model under measurement; without `dense` it is the dense model itself."""
    return Subject(
        model=model,
        dense=model if dense is None else dense,
        cost=cost or true_cost(model),
        evaluation=Corpus((torch.arange(context),), context, "stand-in"),
        context=context,
        device=device,
        repeats=repeats,
        allow_modelled=allow_modelled,
    )


def broken(model: nn.Module) -> nn.Module:
    """Put a NaN into the model's last norm, so that every logit is one; return it."""
    with torch.no_grad():
        model.get_parameter("model.norm.weight")[0] = float("nan")
    return model
