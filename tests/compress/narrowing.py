"""Small models of many families, made narrower, for the tests of MoDeGPT."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel

from hpo.compress.applying import compressed
from hpo.compress.layers.narrow import NarrowAttention
from hpo.compress.modegpt_basis import Narrowing
from hpo.compress.modegpt_cut import cut_attention, cut_mlp
from hpo.compress.modegpt_parts import Attention, Mlp, anatomy
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.surgery import bias_of, shared_copy, weight_of
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small

ORDER = Narrowing("elimination")


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=small.VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=small.CONTEXT,
            initializer_range=0.2,
            sliding_window=8,
        )
    )


def phi3() -> PreTrainedModel:
    return Phi3ForCausalLM(
        Phi3Config(
            vocab_size=small.VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=small.CONTEXT,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


FAMILIES = ("llama", "qwen2", "mistral", "gpt2", "opt", "neox")


def drawn_biases(model: nn.Module) -> None:
    """Give biases, which are zero in a new model, other values."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, _ in small.weights(model):
            bias = bias_of(model.get_submodule(name))
            if bias is not None:
                bias.copy_(torch.randn(bias.shape, generator=generator) * 0.3)


def family(name: str, digest: str = "") -> DenseModel:
    """Return a small model of a family, with biases that are not zero."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(small.FAMILIES, "mistral", mistral)
        patch.setitem(small.FAMILIES, "phi3", phi3)
        dense = small.dense_model(name, digest=digest or f"narrow-{name}")
    drawn_biases(dense.module)
    return dense


def profiler(dense: DenseModel) -> Profiler:
    return Profiler(dense, small.corpus(), small.CONTEXT)


def candidate(**knobs: Any) -> Candidate:
    return Candidate.of({"factorise": "modegpt", **{f"factorise.{k}": v for k, v in knobs.items()}})


def narrowed(dense: DenseModel, **knobs: Any) -> tuple[Plan, nn.Module]:
    base, asked = profiler(dense), candidate(**knobs)
    plan = plan_of(base.profile(preparations_of(asked)), asked)
    return plan, compressed(base, asked, plan)


def relative_error(model: nn.Module, expected: Tensor) -> float:
    return float(torch.linalg.norm(small.logits(model) - expected) / torch.linalg.norm(expected))


def rows_of(dense: DenseModel, attention: Attention, part: int) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return weight and bias, as stored, of the layer that holds queries, keys or values, and where."""
    count = attention.heads.queries if part == 0 else attention.heads.keys
    index, rows = attention.wiring.rows(part, count, attention.heads.size)
    layer = dense.module.get_submodule(attention.inputs[index])
    return weight_of(layer), bias_of(layer), rows


def thin_out(dense: DenseModel) -> None:
    """Make half of every part useless: the second half of the units copies the first backwards, half of
    the pairs of queries are zero, values span half of their dimensions."""
    generator = torch.Generator().manual_seed(1)
    base = profiler(dense)
    with torch.no_grad():
        for part in anatomy(dense.module, base.architecture).parts:
            if isinstance(part, Mlp):
                for name in part.inputs:
                    layer, half = dense.module.get_submodule(name), part.width // 2
                    weight_of(layer)[half:] = weight_of(layer)[:half].flip(0)
                    if (bias := bias_of(layer)) is not None:
                        bias[half:] = bias[:half].flip(0)
                continue
            heads = part.heads
            pairs = heads.pairs() if part.wiring.is_rotary else torch.arange(heads.size)[:, None]
            weight, bias, rows = rows_of(dense, part, 0)
            for group in rows.reshape(heads.keys, -1, heads.size):
                dead = pairs[torch.randperm(len(pairs), generator=generator)[: len(pairs) // 2]].flatten()
                weight[group[:, dead].flatten()] = 0
                if bias is not None:
                    bias[group[:, dead].flatten()] = 0
            weight, bias, rows = rows_of(dense, part, 2)
            for head in rows:
                span = torch.linalg.qr(torch.randn(heads.size, heads.size // 2, generator=generator)).Q
                weight[head] = span @ span.T @ weight[head]
                if bias is not None:
                    bias[head] = span @ span.T @ bias[head]


def cut_to(dense: DenseModel, share: float) -> nn.Module:
    """Cut every part of a model to a share of its size; of the units of an MLP the first are kept."""
    base = profiler(dense)
    model = shared_copy(dense.module)
    shapes = {layer.name: layer for layer in base.architecture.layers}
    parts = {part.path: part for part in anatomy(model, base.architecture).parts}
    for piece in ORDER.prepare(dense.module, base.architecture, base.statistics):
        part = parts.get(piece.name)
        if isinstance(part, Mlp):
            gram = base.statistics.gram(shapes[part.output])
            cut_mlp(model, part, torch.arange(part.width), round(part.width * share), gram)
        elif part is not None:
            gram = base.statistics.gram(shapes[part.output])
            size = round(part.heads.size * share)
            cut_attention(model, part, piece.tensors, size, size, gram)
    return model.eval()


def attention_path(model: nn.Module) -> str:
    found: list[str] = [n for n, module in model.named_modules() if isinstance(module, NarrowAttention)]
    return found[0]
