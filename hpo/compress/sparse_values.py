"""Train the weights that stay, and nothing else, of layers with zeros that are held whole.

For as long as they are trained, such layers hold the weights that stay by themselves. So zeros stay zero
whatever the optimiser does, and it keeps no state for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from hpo.compress.layers.places import Bitmap
from hpo.compress.layers.sparse import MaskedLinear, MaskedMatrix, SparseLinear, SparseMatrix
from hpo.compress.surgery import bias_of, replace


@contextmanager
def values_alone(model: nn.Module) -> Iterator[None]:
    """Have the layers with zeros in a form that can be trained, for a while: before and after they are the
    same modules, and the function is the same."""
    masked = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, MaskedLinear | MaskedMatrix)
    }
    owners: dict[nn.Module, MaskedLinear | MaskedMatrix] = {}
    for name, module in masked.items():
        stand_in = _without_zeros(module)
        owners[stand_in] = module
        replace(model, name, stand_in)
    try:
        yield
    finally:
        # By now a layer may stand elsewhere: inside another one, beside an adapter.
        for name, module in list(model.named_modules()):
            if module in owners:
                _put_values(owners[module], module)
                replace(model, name, owners[module])


def _without_zeros(module: MaskedLinear | MaskedMatrix) -> SparseLinear | SparseMatrix:
    weight = module.weight.detach()
    mask = weight != 0
    matrix = SparseMatrix(weight[mask], Bitmap.of(mask, {}))
    return SparseLinear(matrix, bias_of(module), module.parts) if isinstance(module, MaskedLinear) else matrix


@torch.no_grad()
def _put_values(module: MaskedLinear | MaskedMatrix, trained: nn.Module) -> None:
    matrix = trained.matrix if isinstance(trained, SparseLinear) else trained
    assert isinstance(matrix, SparseMatrix)
    module.weight.copy_(matrix.whole())
