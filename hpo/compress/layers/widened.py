"""Layers back in the shape of the dense model's. Letters: O output features, I input features."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.layers.wiring import features_of


def widened(old: nn.Module, weight_OI: Tensor, bias_O: Tensor | None, parts: int = 1) -> nn.Module:
    """Return a layer of the class and shape of `old` with a weight and bias that have fewer rows or columns.

    Zeros take the place of what was left out; it stands last of each of `parts` equal parts of the rows, and
    last of all columns: heads and units have no order.
    """
    out_features, in_features = features_of(old)
    if weight_OI.shape == (out_features, in_features):
        return with_weight(old, weight_OI.detach(), None if bias_O is None else bias_O.detach())
    part = torch.arange(parts)[:, None] * (out_features // parts)
    rows = (part + torch.arange(len(weight_OI) // parts)).flatten()
    columns = torch.arange(weight_OI.shape[1])
    return with_weight(
        old,
        spread(weight_OI, rows, out_features, columns, in_features),
        None if bias_O is None else spread(bias_O, rows, out_features),
    )


def spread(
    narrow: Tensor, rows: Tensor, row_count: int, columns: Tensor | None = None, column_count: int = 0
) -> Tensor:
    """Return zeros with the rows (and columns) of a narrow weight or bias at the places given."""
    by_row = narrow.new_zeros((row_count, *narrow.shape[1:]))
    by_row[rows.to(narrow.device)] = narrow.detach()
    if columns is None:
        return by_row
    whole = narrow.new_zeros((row_count, column_count))
    whole[:, columns.to(narrow.device)] = by_row
    return whole


def with_weight(old: nn.Module, weight_OI: Tensor, bias_O: Tensor | None) -> nn.Module:
    """Return a layer of the class of `old` with another weight and, if one is given, bias."""
    layer: Any = copy.deepcopy(old, {id(p): p for p in old.parameters()})
    weight = weight_OI if isinstance(old, nn.Linear) else weight_OI.T.contiguous()
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias_O is not None:
        layer.bias = nn.Parameter(bias_O, requires_grad=False)
    dense: nn.Module = layer
    return dense
