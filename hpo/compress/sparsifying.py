"""Set weights of a model's layers to zero, as planned.

What is worked out for layers of the dense model is kept in the factor cache, however it is held in the end, a
directory a plan and in it one a layer: ``<cache>/factors/<key>/sparse/<work of the plan>/<layer>``. It holds
which weights stay, one bit each, and their values where they are not the model's own.

Letters: O output features, I input features, K rank.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.compress.architecture import LayerShape
from hpo.compress.grams import input_grams
from hpo.compress.layers import LowRankLinear, NarrowLinear
from hpo.compress.layers.places import Bitmap, places_of
from hpo.compress.layers.sparse import (
    MaskedLinear,
    MaskedMatrix,
    SparseLinear,
    SparseLowRankLinear,
    SparseMatrix,
)
from hpo.compress.materials import Materials
from hpo.compress.plan import Plan
from hpo.compress.sparse_math import Thinned
from hpo.compress.sparse_plan import Sparse
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import bias_of, replace, weight_of
from hpo.measure.quiet import QuietNode
from hpo.models.cache import build_once

_FILE = "tensors.safetensors"


def sparsify_layers(model: nn.Module, plan: Plan, materials: Materials) -> None:
    """Replace every layer that a plan has with zeros, in place.

    Inputs are those of the model as it is before any of its layers has zeros: of the dense model, whose
    statistics are cached, or else the calibration text goes through it once.

    Raises:
        NonFinite: a weight or a Gram matrix holds NaN or infinity.
    """
    planned = [(shape, layer) for shape, layer in plan.named() if isinstance(layer, Sparse)]
    if materials.is_dense:
        owners = {shape.name: shape.gram for shape in plan.architecture.layers}
        statistics = Statistics(materials.store.root, materials.dense, materials.calibration, owners)
        for shape, layer in planned:
            module = model.get_submodule(shape.name)
            found = _from_cache(module, shape, layer, materials, statistics)
            replace(model, shape.name, _linear(module, layer, found))
        return
    wanted = [shape.name for shape, layer in planned if layer.sparsifier.needs_gram]
    grams = input_grams(model, wanted, materials.calibration) if wanted else {}
    for shape, layer in planned:
        module = model.get_submodule(shape.name)
        with QuietNode().working():
            replace(model, shape.name, sparse_module(module, layer, grams.get(shape.name)))


def sparse_module(module: nn.Module, layer: Sparse, gram_II: Tensor | None) -> nn.Module:
    """Return what takes the place of a layer's module; `gram_II` is that of its inputs.

    Of two factors the right one, next to the inputs, gets its zeros first, and the left one those for what
    it then reads.

    Raises:
        NonFinite: a weight or the Gram matrix holds NaN or infinity.
        Unsupported: the module is no layer of one or two matrices.
    """
    if not isinstance(module, LowRankLinear):
        return _linear(module, layer, _thin(weight_of(module).detach(), layer, gram_II))
    right = _thin(module.right.detach(), layer, gram_II)
    gram_KK = None
    if gram_II is not None:
        right_KI = right.weight.double()
        gram_KK = right_KI @ gram_II.double() @ right_KI.T
    left = _thin(module.left.detach(), layer, gram_KK)
    return SparseLowRankLinear(_matrix(layer, left), _matrix(layer, right), bias_of(module))


def held_whole(module: nn.Module) -> nn.Module:
    """Return a layer of one matrix that is held without its zeros as one that is held whole; any other module
    as it is."""
    if not isinstance(module, SparseLinear):
        return module
    return MaskedLinear(module.dense_weight().detach(), bias_of(module), module.parts)


def _thin(weight_OI: Tensor, layer: Sparse, gram_II: Tensor | None) -> Thinned:
    """Return a matrix with zeros in its own precision."""
    found = layer.sparsifier.thin(weight_OI, gram_II, layer.pattern)
    return Thinned(found.weight.to(weight_OI.dtype), found.mask)


def _linear(module: nn.Module, layer: Sparse, found: Thinned) -> nn.Module:
    parts = module.parts if isinstance(module, NarrowLinear) else 1
    matrix = _matrix(layer, found)
    if isinstance(matrix, SparseMatrix):
        return SparseLinear(matrix, bias_of(module), parts)
    return MaskedLinear(matrix.weight.detach(), bias_of(module), parts)


def _matrix(layer: Sparse, found: Thinned) -> SparseMatrix | MaskedMatrix:
    if layer.layout is None:
        return MaskedMatrix(found.weight.contiguous())
    places = places_of(found.mask, layer.layout.size(*found.mask.shape))
    return SparseMatrix(found.weight[found.mask], places)


def _from_cache(
    module: nn.Module, shape: LayerShape, layer: Sparse, materials: Materials, statistics: Statistics
) -> Thinned:
    weight_OI = weight_of(module).detach()

    def fill(directory: Path) -> None:
        gram = statistics.gram(shape) if layer.sparsifier.needs_gram else None
        with QuietNode().working():
            found = _thin(weight_OI, layer, gram)
        kept = {"bits": Bitmap.of(found.mask, {}).bits}
        if layer.sparsifier.updates:
            kept["values"] = found.weight[found.mask]
        save_file({name: tensor.cpu().contiguous() for name, tensor in kept.items()}, directory / _FILE)

    directory = materials.store.directory("sparse") / layer.work.replace("/", "_") / shape.name
    kept = {
        name: tensor.to(weight_OI.device)
        for name, tensor in load_file(build_once(directory, fill) / _FILE).items()
    }
    mask_OI = Bitmap(kept["bits"], weight_OI.shape[1], 0).mask()
    values = kept["values"] if "values" in kept else weight_OI[mask_OI]
    return Thinned(torch.zeros_like(weight_OI).masked_scatter(mask_OI, values), mask_OI)
