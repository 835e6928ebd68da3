"""Which rows and columns of a model may change places together without changing what it computes.

The neurons of an MLP: rows of what leads to them with the columns of what leads on. The heads of
attention: rows of queries, keys and values with the columns of the output, whole heads only (a
rotary embedding acts within a head), groups of heads that share keys and values as groups.

Known for the models of `_KNOWN`; others are left as they are.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.surgery import replace, weight_of

_GATED = (("gate_proj", "up_proj"), "down_proj")
_SPLIT_HEADS = ("q_proj", "k_proj", "v_proj")
_LLAMA_LIKE = (_GATED, "o_proj")
_KNOWN: Mapping[str, tuple[tuple[tuple[str, ...], str], str]] = {
    "llama": _LLAMA_LIKE,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE,
    "opt": ((("fc1",), "fc2"), "out_proj"),
    "gpt_neox": ((("dense_h_to_4h",), "dense_4h_to_h"), ""),  # queries, keys and values are one matrix
    "gpt2": ((("c_fc",), "c_proj"), ""),
}
"""Model type -> names of the layers into and out of an MLP's neurons, and of the attention's output."""


@dataclass(frozen=True)
class Unit:
    """Layers under one module whose rows and columns belong together."""

    name: str
    """Path of the module."""
    rows: tuple[str, ...]
    """Paths of the layers whose output features are numbered."""
    column: str
    """Path of the layer whose input features are."""
    heads: int = 0
    """Query heads; 0 for the neurons of an MLP."""
    groups: int = 0
    """Key and value heads."""

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.rows, self.column)


def unit_of(layer: str) -> str:
    """Return the name of the unit that a layer belongs to, if to any."""
    return layer.rpartition(".")[0]


def units(model: nn.Module) -> tuple[Unit, ...]:
    """Return what may be reordered in a model; nothing where its structure is not known."""
    config: Any = getattr(model, "config", None)
    known = _KNOWN.get(getattr(config, "model_type", ""))
    if known is None:
        return ()
    (into, out), attention_out = known
    found = []
    for name, module in model.named_modules():
        paths = {child: f"{name}.{child}" for child, _ in module.named_children()}
        if all(child in paths for child in (*into, out)):
            found.append(Unit(name, tuple(paths[child] for child in into), paths[out]))
        if attention_out and all(child in paths for child in (*_SPLIT_HEADS, attention_out)):
            heads = config.num_attention_heads
            groups = getattr(config, "num_key_value_heads", None) or heads
            rows = tuple(paths[child] for child in _SPLIT_HEADS)
            found.append(Unit(name, rows, paths[attention_out], heads, groups))
    return tuple(unit for unit in found if _is_whole(model, unit))


def _is_whole(model: nn.Module, unit: Unit) -> bool:
    """Whether the shapes of a unit are what its kind has."""
    rows = [len(weight_of(model.get_submodule(name))) for name in unit.rows]
    columns = weight_of(model.get_submodule(unit.column)).shape[1]
    if not unit.heads:
        return set(rows) == {columns}
    queries, keys, values = rows
    fits = queries == columns and keys == values and unit.heads % unit.groups == 0
    return fits and queries * unit.groups == keys * unit.heads and queries % unit.heads == 0


def reordered(weight_OI: Tensor, unit: Unit, layer: str, order: Tensor) -> Tensor:
    """Return W of a layer of the unit with its rows, or columns, in another order."""
    return weight_OI[:, order] if layer == unit.column else weight_OI[order]


def reorder(model: nn.Module, unit: Unit, layer: str, order: Tensor) -> None:
    """Put a copy of a dense layer of `model`, in another order, in its place; its bias goes along."""
    old = model.get_submodule(layer)
    new: Any = copy.deepcopy(old, {id(p): p for p in old.parameters()})
    is_column, is_transposed = layer == unit.column, not isinstance(old, nn.Linear)
    weight = old.get_parameter("weight").detach()
    along = 1 if is_column != is_transposed else 0
    new.weight = nn.Parameter(weight.index_select(along, order), requires_grad=False)
    if not is_column and isinstance(new.bias, Tensor):
        new.bias = nn.Parameter(new.bias.detach()[order], requires_grad=False)
    replace(model, layer, new)


def as_order(values: Tensor, device: torch.device) -> Tensor:
    """Return an order that was kept as float64."""
    return values.round().long().to(device)
