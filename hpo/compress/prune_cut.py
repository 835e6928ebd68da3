"""Remove heads and MLP units from a model, in place of the modules that were there.

Letters: O output features, I input features, H heads, D dimensions of a head, K kept heads, units or columns.
"""

import torch
from torch import Tensor, nn

from hpo.compress.layers import FewerHeads, NarrowLinear
from hpo.compress.modegpt_parts import Attention, Mlp
from hpo.compress.prune_math import lost_mean
from hpo.compress.surgery import bias_of, replace, weight_of

COUNTED = ("OPTAttention", "GPT2Attention")
"""Classes of attention that read the number of heads off the configuration, not off the shapes of layers."""


def cut_units(model: nn.Module, mlp: Mlp, kept_K: Tensor, mean_I: Tensor | None = None) -> None:
    """Keep some units of an MLP, numbers ascending; with `mean_I`, what the output layer reads on average,
    the others are held at their mean."""
    for name in mlp.inputs:
        layer = model.get_submodule(name)
        parts = len(weight_of(layer)) // mlp.width
        rows = torch.cat([kept_K + part * mlp.width for part in range(parts)])
        replace(model, name, _with_rows(layer, rows, parts))
    output = model.get_submodule(mlp.output)
    replace(model, mlp.output, _with_columns(output, kept_K, mean_I))


def cut_heads(model: nn.Module, attention: Attention, kept_K: Tensor, mean_I: Tensor | None = None) -> None:
    """Keep some key-value heads, numbers ascending, with all query heads that share them; `mean_I` as of
    `cut_units`."""
    heads, wiring = attention.heads, attention.wiring
    each = heads.queries // heads.keys
    queries_K = (kept_K[:, None] * each + torch.arange(each)).flatten()
    old = model.get_submodule(attention.path)
    layers = {}
    for index, name in enumerate(wiring.inputs):
        numbers = range(3) if wiring.is_fused else (index,)
        rows = [
            wiring.rows(number, heads.queries if number == 0 else heads.keys, heads.size)[1][
                queries_K if number == 0 else kept_K
            ]
            for number in numbers
        ]
        # Head by head: all rows of a head are one run; else all queries, all keys, all values.
        joined = torch.cat(rows, dim=1) if wiring.by_head else torch.cat(rows)
        parts = 1 if wiring.by_head else len(rows)
        layers[name] = _with_rows(old.get_submodule(name), joined.flatten(), parts)
    columns = (queries_K[:, None] * heads.size + torch.arange(heads.size)).flatten()
    layers[wiring.output] = _with_columns(old.get_submodule(wiring.output), columns, mean_I)
    if type(old).__name__ in COUNTED:
        replace(model, attention.path, FewerHeads(old, layers, len(queries_K), len(kept_K)))
    else:
        for name, layer in layers.items():
            replace(model, f"{attention.path}.{name}", layer)


def _with_rows(layer: nn.Module, rows_K: Tensor, parts: int) -> NarrowLinear:
    weight_OI, bias_O = weight_of(layer).detach(), bias_of(layer)
    rows = rows_K.to(weight_OI.device)
    kept = weight_OI[rows].contiguous()
    return NarrowLinear(kept, None if bias_O is None else bias_O[rows], parts)


def _with_columns(layer: nn.Module, columns_K: Tensor, mean_I: Tensor | None) -> NarrowLinear:
    weight_OI, bias_O = weight_of(layer).detach(), bias_of(layer)
    columns = columns_K.to(weight_OI.device)
    if mean_I is not None:
        added_O = lost_mean(weight_OI, mean_I.to(weight_OI.device), columns)
        whole = added_O if bias_O is None else bias_O.double() + added_O
        bias_O = whole.to(weight_OI.dtype)
    return NarrowLinear(weight_OI[:, columns].contiguous(), bias_O)
