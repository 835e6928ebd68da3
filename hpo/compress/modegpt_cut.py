"""Cut the parts of a model narrower, in place of the modules that were there.

Letters: O output features, I input features, H heads, D dimensions of a head, K kept of them or of units,
U units.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hpo.compress.layers.narrow import NarrowAttention, NarrowLinear, plain_linear
from hpo.compress.layers.wiring import narrow_shapes
from hpo.compress.modegpt_math import refit, refit_kept
from hpo.compress.modegpt_parts import Attention, Mlp
from hpo.compress.surgery import bias_of, replace, weight_of


def cut_mlp(model: nn.Module, mlp: Mlp, order_I: Tensor, keep: int, gram_II: Tensor) -> None:
    """Keep the first units in `order_I` of an MLP, and refit the layer that reads them.

    Raises:
        NonFinite: a weight or the Gram matrix holds NaN or infinity.
    """
    for name in mlp.inputs:
        layer = model.get_submodule(name)
        weight, bias = weight_of(layer).detach(), bias_of(layer)
        kept_K = order_I[:keep].sort().values.to(weight.device)
        each = len(weight) // mlp.width
        rows = torch.cat([kept_K + part * mlp.width for part in range(each)])
        replace(model, name, NarrowLinear(weight[rows], None if bias is None else bias[rows], each))
    layer = model.get_submodule(mlp.output)
    weight = weight_of(layer).detach()
    kept_K = order_I[:keep].sort().values.to(weight.device)
    fitted_OK = refit_kept(weight, gram_II.to(weight.device), kept_K, f"{mlp.output}.weight")
    replace(model, mlp.output, NarrowLinear(fitted_OK.to(weight.dtype).contiguous(), bias_of(layer)))


def cut_attention(
    model: nn.Module,
    attention: Attention,
    prepared: Mapping[str, Tensor],
    query_key: int,
    value: int,
    gram_II: Tensor,
) -> None:
    """Give heads `query_key` and `value` dimensions, and refit the layer that reads the values.

    `prepared` is what `hpo.compress.modegpt_basis` keeps of it, `gram_II` belongs to the output layer.

    Raises:
        NonFinite: a weight or the Gram matrix holds NaN or infinity.
    """
    old, heads, wiring = model.get_submodule(attention.path), attention.heads, attention.wiring
    device = next(old.parameters()).device
    units_HU = _kept_units(attention, prepared["order"].to(device), query_key)
    encoder_HKD = prepared["encoder"].to(device).double()[:, :value]
    parts = [
        *_queries_and_keys(attention, model, units_HU),
        _values(attention, model, encoder_HKD if value < heads.size else None),
    ]
    shapes = narrow_shapes(wiring, heads, query_key, value)
    layers = {}
    for index, name in enumerate(wiring.inputs):
        if name in shapes:
            weight, bias = _stacked(parts) if wiring.is_fused else parts[index]
            layers[name] = plain_linear(weight, bias)
    if wiring.output in shapes:
        layers[wiring.output] = _output(attention, model, encoder_HKD, gram_II.to(device))
    is_picked = wiring.is_rotary and query_key < heads.size
    replace(model, attention.path, NarrowAttention(old, layers, units_HU.int() if is_picked else None))


def _kept_units(attention: Attention, order_HU: Tensor, query_key: int) -> Tensor:
    """Return the rotary pairs or dimensions to keep, by key head, (H, U), ascending."""
    return order_HU[:, : query_key // attention.unit].sort(1).values


def _queries_and_keys(
    attention: Attention, model: nn.Module, units_HU: Tensor
) -> list[tuple[Tensor, Tensor | None]]:
    """Return the rows that are kept of both, (H * D, I), and of their biases, the first of each pair before
    the second ones."""
    heads = attention.heads
    dims_HD = units_HU
    if attention.wiring.is_rotary:
        dims_HD = heads.pairs().to(units_HU.device)[units_HU].transpose(1, 2).flatten(1)
    found = []
    for part, each in ((0, heads.queries // heads.keys), (1, 1)):
        weight_HDI, bias_HD = attention.head_weight(model, part)
        dims = dims_HD.repeat_interleave(each, 0)
        rows = weight_HDI.take_along_dim(dims[..., None], 1).flatten(0, 1)
        found.append((rows, None if bias_HD is None else bias_HD.take_along_dim(dims, 1).flatten()))
    return found


def _values(
    attention: Attention, model: nn.Module, encoder_HKD: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    weight_HDI, bias_HD = attention.head_weight(model, 2)
    dtype = weight_HDI.dtype
    if encoder_HKD is not None:
        weight_HDI = (encoder_HKD @ weight_HDI.double()).to(dtype)
        bias_HD = None if bias_HD is None else (encoder_HKD @ bias_HD.double()[..., None])[..., 0].to(dtype)
    return weight_HDI.flatten(0, 1), None if bias_HD is None else bias_HD.flatten()


def _output(attention: Attention, model: nn.Module, encoder_HKD: Tensor, gram_II: Tensor) -> nn.Linear:
    """Return the output layer refitted to the encoded values of all heads together."""
    heads = attention.heads
    layer = model.get_submodule(attention.output)
    weight = weight_of(layer).detach()
    whole_KI = torch.block_diag(*encoder_HKD.repeat_interleave(heads.queries // heads.keys, 0))
    fitted_OK = refit(weight, gram_II, whole_KI, f"{attention.output}.weight")
    return plain_linear(fitted_OK.to(weight.dtype).contiguous(), bias_of(layer))


def _stacked(parts: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    biases = [bias for _, bias in parts if bias is not None]
    return torch.cat([weight for weight, _ in parts]), torch.cat(biases) if biases else None
