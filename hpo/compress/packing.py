"""Put the matrices of a model's layers into few bits, as planned.

What is worked out for layers of the dense model is kept in the factor cache, a directory a plan and in it one
a layer: ``<cache>/factors/<key>/packed/<plan of the layer>/<layer>/tensors.safetensors``.

Letters: O output features, I input features, R rank.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.compress.architecture import LayerShape
from hpo.compress.correction_math import right_for, split
from hpo.compress.encoded_plan import Encoded
from hpo.compress.grams import input_grams
from hpo.compress.layers import (
    CorrectedLinear,
    LowRankLinear,
    NarrowLinear,
    PackedLowRankLinear,
    SparseLowRankLinear,
)
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.packed import Packed
from hpo.compress.layers.packed_narrow import PackedNarrowLinear
from hpo.compress.materials import Materials
from hpo.compress.plan import Plan
from hpo.compress.residual import evened
from hpo.compress.sparsifying import held_whole
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import bias_of, replace, weight_of
from hpo.measure.quiet import QuietNode
from hpo.models.cache import build_once

_FILE = "tensors.safetensors"


def pack_layers(model: nn.Module, plan: Plan, materials: Materials) -> None:
    """Replace every layer that a plan has in few bits, in place.

    Where nothing has changed before, inputs are those of the dense model and what was worked out once is read
    from the cache; else the calibration text goes through the model as it is, once.

    Raises:
        NonFinite: a weight or a Gram matrix holds NaN or infinity.
        Unsupported: a weight is beyond what a format can hold.
    """
    planned = [(shape, layer) for shape, layer in plan.named() if isinstance(layer, Encoded)]
    if materials.is_dense:
        owners = {shape.name: shape.gram for shape in plan.architecture.layers}
        statistics = Statistics(materials.store.root, materials.dense, materials.calibration, owners)
        for shape, layer in planned:
            replace(model, shape.name, _from_cache(model, shape, layer, materials, statistics))
        return
    wanted = [shape.name for shape, layer in planned if _needs_gram(layer)]
    grams = input_grams(model, wanted, materials.calibration) if wanted else {}
    for shape, layer in planned:
        module = model.get_submodule(shape.name)
        with QuietNode().working():
            replace(model, shape.name, packed_module(module, layer, grams.get(shape.name)))


def _needs_gram(layer: Encoded) -> bool:
    return layer.quantizer.needs_gram or layer.rank > 0


def packed_module(module: nn.Module, layer: Encoded, gram_II: Tensor | None) -> nn.Module:
    """Return what takes the place of a layer's module; `gram_II` is that of its inputs.

    Of two factors the left one is rounded first, and the right one, fitted anew, makes up for that (as in
    LPLR, Saha et al. 2023, arXiv:2310.11028).

    Raises:
        NonFinite: a weight or the Gram matrix holds NaN or infinity.
        Unsupported: a weight is beyond what the format can hold.
    """
    quantizer = layer.quantizer
    module = held_whole(module)
    if isinstance(module, SparseLowRankLinear):  # a factor fitted anew would have no zeros
        packed_left = quantizer.quantise(module.left.whole().T, None)
        packed_right = quantizer.quantise(module.right.whole(), gram_II)
        return PackedLowRankLinear(packed_left, packed_right, bias_of(module))
    if isinstance(module, LowRankLinear):
        left, right = module.left.double(), module.right.double()
        packed_left = quantizer.quantise(left.T, None)
        answer = right_for(packed_left.dequantise().double().T, left @ right)
        return PackedLowRankLinear(packed_left, quantizer.quantise(answer, gram_II), bias_of(module))
    return _held(module, *_worked_out(module, layer, gram_II))


def _worked_out(module: nn.Module, layer: Encoded, gram_II: Tensor | None) -> tuple[Packed, list[Tensor]]:
    """Return W in few bits, and the factors of what that loses, left and right, if the plan has any."""
    weight_OI = weight_of(module).detach()
    if layer.rank == 0:
        return layer.quantizer.quantise(weight_OI, gram_II), []
    found = split(weight_OI, gram_II, layer.quantizer, layer.rank)
    factors = evened(found.factors.left, found.factors.right)
    return found.backbone, [factor.to(weight_OI.dtype).contiguous() for factor in factors]


def _held(module: nn.Module, backbone: Packed, factors: Sequence[Tensor]) -> nn.Module:
    left, right = factors or (None, None)
    if isinstance(module, NarrowLinear):
        return PackedNarrowLinear(backbone, left, right, bias_of(module), module.parts)
    return CorrectedLinear(backbone, left, right, bias_of(module))


def _from_cache(
    model: nn.Module, shape: LayerShape, layer: Encoded, materials: Materials, statistics: Statistics
) -> nn.Module:
    module = model.get_submodule(shape.name)
    device = next(module.parameters()).device

    def fill(directory: Path) -> None:
        gram = statistics.gram(shape) if _needs_gram(layer) else None
        with QuietNode().working():
            backbone, factors = _worked_out(module, layer, gram)
        kept = backbone.state_dict(prefix="backbone.") | {
            f"factor.{number}": factor for number, factor in enumerate(factors)
        }
        save_file({name: t.cpu().contiguous() for name, t in kept.items()}, directory / _FILE)

    directory = materials.store.directory("packed") / layer.costs.key.replace("/", "_") / shape.name
    tensors = {name: t.to(device) for name, t in load_file(build_once(directory, fill) / _FILE).items()}
    with torch.device("meta"):
        backbone = empty_packed(layer.quantizer.format.size(shape.out_features, shape.in_features))
    state = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    backbone.load_state_dict(state, assign=True)
    return _held(module, backbone, [tensors[name] for name in sorted(tensors) if name.startswith("factor.")])
