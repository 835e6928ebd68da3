"""How much the loss of a calibration text is expected to rise when weights become zero, by Taylor expansion.

Letters: O output features, I input features.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from hpo.compress.gradients import run_gradients
from hpo.compress.surgery import weight_of
from hpo.errors import NonFinite
from hpo.models.text import Corpus

TaylorOrder = Literal["first", "second"]
ORDERS: tuple[TaylorOrder, ...] = ("first", "second")

SEQUENCES = 64
"""Calibration sequences whose gradients are taken; the paper takes 10."""


def salience(weight_OI: Tensor, mean_OI: Tensor, squared_OI: Tensor, order: TaylorOrder) -> Tensor:
    """Return how much the loss is expected to change when each weight alone becomes zero, (O, I).

    ``|g w|`` of the first order, ``|g w - F w^2 / 2|`` of the second. `mean_OI` is g, the mean gradient of a
    sequence's summed loss, `squared_OI` is F, the mean of its squares, which stands for the diagonal of the
    second derivative.

    Source: LLM-Pruner, Ma et al. 2023, arXiv:2305.11627, equation 5.
    """
    first = mean_OI * weight_OI
    if order == "first":
        return first.abs()
    return (first - 0.5 * squared_OI * weight_OI.square()).abs()


def collect_taylor(model: nn.Module, corpus: Corpus) -> dict[str, Tensor]:
    """Return, for each linear layer and order, the sums of `salience` over rows, ``<layer>.<order>.rows``
    (O,), and over columns, ``<layer>.<order>.columns`` (I,), float64.

    The sums of all gradients and of their squares are held in float32 meanwhile, twice the linear layers.

    Raises:
        NonFinite: a gradient is NaN or infinite; names the layer.
    """
    sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(name: str, gradient_OI: Tensor) -> None:
        gradient = gradient_OI.float()
        if name in sums:
            sums[name][0].add_(gradient)
            sums[name][1].addcmul_(gradient, gradient)
        else:
            sums[name] = gradient.clone(), gradient.square()

    sequences = corpus.sequences[:SEQUENCES]
    run_gradients(model, sequences, add)
    found = {}
    for name in list(sums):
        total, squares = sums.pop(name)
        if not torch.isfinite(squares).all():
            raise NonFinite(f"a gradient of {name}.weight is NaN or infinite", "set model.dtype to float32")
        weight = weight_of(model.get_submodule(name)).detach().float()
        for order in ORDERS:
            values = salience(weight, total / len(sequences), squares / len(sequences), order).double()
            found[f"{name}.{order}.rows"] = values.sum(1)
            found[f"{name}.{order}.columns"] = values.sum(0)
    return found
