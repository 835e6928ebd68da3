"""Small models whose residual stream is made narrower, for the tests of SliceGPT."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from hpo.compress.applying import compressed
from hpo.compress.plan import Change, Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.slicegpt_layout import layout_of
from hpo.compress.slicegpt_plan import Rotations
from hpo.compress.surgery import count_macs, linear_layers
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Value
from tests.compress import small
from tests.compress.narrowing import drawn_biases, family, profiler

ROTATIONS: tuple[Rotations, ...] = ("per_layer", "shared")
WIDTH = 32
"""Of the small models."""


def tied() -> PreTrainedModel:
    return small.llama(tied=True)


def biased() -> PreTrainedModel:
    """A model whose layers all have biases, those that write the stream too."""
    config = LlamaConfig(
        vocab_size=small.VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=small.CONTEXT,
        initializer_range=0.2,
        attention_bias=True,
        mlp_bias=True,
    )
    return LlamaForCausalLM(config)


def scaled(module: nn.Module) -> None:
    """Give norms scales other than 1, as those of a trained model are."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))


def model_of(name: str, digest: str = "") -> DenseModel:
    """Return a small model of a family, with scales and biases that matter."""
    made = {"tied": tied, "biased": biased}
    digest = digest or f"slicegpt-{name}"
    with pytest.MonkeyPatch.context() as patch:
        for key, build in made.items():
            patch.setitem(small.FAMILIES, key, build)
        dense = small.dense_model(name, digest=digest) if name in made else family(name, digest)
    drawn_biases(dense.module)
    scaled(dense.module)
    return dense


def candidate(**knobs: Value) -> Candidate:
    return Candidate.of({"prune": "slicegpt", **{f"prune.{name}": value for name, value in knobs.items()}})


def planned(base: Profiler, asked: Candidate) -> Plan:
    return plan_of(base.profile(preparations_of(asked)), asked)


def narrowed(dense: DenseModel, **knobs: Value) -> tuple[Plan, nn.Module]:
    base, asked = profiler(dense), candidate(**knobs)
    plan = planned(base, asked)
    return plan, compressed(base, asked, plan)


def at_width(dense: DenseModel, width: int, rotations: Rotations) -> nn.Module:
    """Slice to a width that no keep ratio below 1 may give."""
    base, asked = profiler(dense), candidate(keep_ratio=0.9, rotations=rotations)
    layout = layout_of(base.profile(preparations_of(asked)), rotations)
    layers, rest = layout.plans(width), (layout.stream(width),)
    change = Change("prune", "slicegpt", Plan(layout.architecture, layers, rest=rest))
    return compressed(base, asked, Plan(layout.architecture, layers, (change,), rest=rest))


def check_counts(plan: Plan, model: nn.Module, dense: nn.Module) -> None:
    held, before = Held.by(model), Held.by(dense)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - before.buffer_bytes == plan.weight_bytes
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs


def in_half(dense: DenseModel) -> None:
    """Let nothing be written to the stream outside of a random subspace of half its width."""
    span = torch.linalg.qr(torch.randn(WIDTH, WIDTH // 2, generator=torch.Generator().manual_seed(2))).Q
    onto = span @ span.T
    module: Any = dense.module
    with torch.no_grad():
        table = module.get_input_embeddings().weight
        table.copy_(table @ onto)
        for name, layer in linear_layers(module):
            if name.endswith(("o_proj", "down_proj")):
                layer.get_parameter("weight").copy_(onto @ layer.get_parameter("weight"))
