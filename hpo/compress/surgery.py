"""Look into a model, copy it without its weights, and put other modules in place of its layers."""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers.cache_utils import DynamicLayer
from transformers.pytorch_utils import Conv1D

from hpo.compress.architecture import SMALLEST_SIDE, Architecture, EmbeddingShape, LayerShape
from hpo.compress.cache_plan import CacheShape
from hpo.compress.layers import Compressed, CompressedLinear, MpoLinear, TtTable
from hpo.errors import NonFinite, Unsupported


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _integer_product_flops(left: Any, right: Any, *_: Any, **__: Any) -> int:
    return 2 * int(left[0]) * int(left[1]) * int(right[1])


_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._int_mm: _integer_product_flops,
}
"""What torch leaves out: attention on a processor, which it counts on CUDA, and products of integers."""


def weight_of(module: nn.Module) -> Tensor:
    """Return W of a linear layer, shape (out_features, in_features); GPT-2's Conv1D is stored transposed.

    Raises:
        Unsupported: the module is no linear layer.
    """
    if isinstance(module, nn.Linear):
        return module.weight
    if isinstance(module, Conv1D):
        transposed: Tensor = module.weight
        return transposed.T
    raise Unsupported(f"a {type(module).__name__} is no linear layer", "allowed: Linear, Conv1D")


def inspect(model: nn.Module, context: int, gram_owner: Mapping[str, str]) -> Architecture:
    """Describe a model. `gram_owner` maps each layer to the one whose input it shares.

    Costs outside the layers are counted, not derived: parameters by walking, MACs by torch's
    FlopCounter over one forward of `context` tokens, so that any decoder-only model is covered.

    Raises:
        Unsupported: no linear layer was found inside the blocks.
        NonFinite: a weight is NaN or infinite.
    """
    layers = tuple(_shape(name, module, gram_owner) for name, module in linear_layers(model))
    if not layers:
        raise Unsupported(
            f"{type(model).__name__} has no linear layer inside numbered blocks",
            "supported: decoder-only models whose blocks hold Linear or Conv1D layers",
        )
    weights = [model.get_parameter(f"{layer.name}.weight") for layer in layers]
    inside = set(map(id, weights))
    others = [p for p in model.parameters() if id(p) not in inside]
    for layer, weight in zip(layers, weights, strict=True):
        if not torch.isfinite(weight).all():
            raise NonFinite(f"{layer.name}.weight holds NaN or infinity", "the checkpoint is damaged")
    bits = {weight.element_size() * 8 for weight in weights}
    if len(bits) != 1:
        raise Unsupported(
            f"the layers are stored in different precisions ({bits} bits)", "set model.dtype in the study"
        )
    linear_macs = context * sum(layer.parameters for layer in layers)
    return Architecture(
        layers=layers,
        other_parameters=sum(p.numel() for p in others),
        other_bytes=sum(p.numel() * p.element_size() for p in others),
        other_macs=count_macs(model, context) - linear_macs,
        context=context,
        weight_bits=bits.pop(),
        embedding=_embedding(model),
        cache=_cache(model),
    )


def _cache(model: nn.Module) -> tuple[CacheShape, ...]:
    """Describe the cache of a model of transformers by filling one."""
    device = next(model.parameters()).device
    ids = torch.zeros((1, 2), dtype=torch.long, device=device)
    if not hasattr(model, "generate"):
        return ()
    with torch.no_grad():
        layers = getattr(getattr(model(input_ids=ids, use_cache=True), "past_key_values", None), "layers", ())
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return ()
    return tuple(
        CacheShape(block, layer.keys.shape[1], layer.keys.shape[-1], layer.values.shape[-1])
        for block, layer in enumerate(layers)
        if layer.keys is not None  # a block that was removed keeps none
    )


def _embedding(model: Any) -> EmbeddingShape | None:
    """Describe the token embedding of a model of transformers."""
    table = model.get_input_embeddings()
    if not isinstance(table, nn.Embedding) or type(table).forward is not nn.Embedding.forward:
        return None  # a scaled table, as Gemma has, is no plain one
    paths = {id(module): name for name, module in model.named_modules()}
    vocabulary, width = table.weight.shape
    head = model.get_output_embeddings()
    is_plain = isinstance(head, nn.Linear) and head.weight.shape == table.weight.shape
    return EmbeddingShape(
        name=paths[id(table)],
        vocabulary=vocabulary,
        width=width,
        head=paths[id(head)] if is_plain else "",
        tied=is_plain and head.weight is table.weight,
    )


def count_macs(model: nn.Module, tokens: int) -> int:
    """Return the multiply-accumulates torch counts in one forward of `tokens` tokens, batch 1."""
    device = next(model.parameters()).device
    ids = torch.zeros((1, tokens), dtype=torch.long, device=device)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
        model(input_ids=ids, use_cache=False)
    return int(counter.get_total_flops()) // 2


def linear_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the linear layers inside the numbered blocks of a model, in order, with their paths."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and re.search(r"\.\d+\.", name)
        and min(module.weight.shape) >= SMALLEST_SIDE
    ]


def _shape(name: str, module: nn.Module, gram_owner: Mapping[str, str]) -> LayerShape:
    out_features, in_features = weight_of(module).shape
    block = re.search(r"\.(\d+)\.", name)
    group = "attention" if re.search(r"attn|attention", name) else "mlp"
    return LayerShape(
        name=name,
        out_features=out_features,
        in_features=in_features,
        block=int(block.group(1)) if block else 0,
        group=group,
        gram=gram_owner.get(name, name),
    )


def shared_copy(model: nn.Module) -> nn.Module:
    """Copy a model's modules but not its weights: replacing a layer of the copy leaves the original be."""
    tensors = [*model.parameters(), *model.buffers()]
    memo: dict[int, object] = {id(tensor): tensor for tensor in tensors}
    return copy.deepcopy(model, memo)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at the path `name`. Where a compressed layer takes the place of another one, its outputs
    are read in as many parts."""
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    old = getattr(owner, child)
    if isinstance(module, CompressedLinear) and isinstance(old, Compressed):
        module.parts = getattr(old, "parts", 1)
    setattr(owner, child, module)


@contextmanager
def rebuilding(model: nn.Module) -> Iterator[None]:
    """Let tensor trains rebuild their matrix each call, for a while: the same function, faster on many tokens
    than core by core, and never stale as a cached matrix would be while the cores are trained."""
    layers = [module for module in model.modules() if isinstance(module, MpoLinear | TtTable)]
    before = [layer.contraction for layer in layers]
    for layer in layers:
        layer.contraction = "rebuild"
        layer.cached_weight = None
    try:
        yield
    finally:
        for layer, contraction in zip(layers, before, strict=True):
            layer.contraction = contraction


def bias_of(module: nn.Module) -> Tensor | None:
    bias = getattr(module, "bias", None)
    return bias.detach() if isinstance(bias, Tensor) else None
