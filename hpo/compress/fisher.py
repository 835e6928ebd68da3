"""How much the loss of a calibration text minds a change of each row of each weight matrix.

Letters: O output features, I input features, T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hpo.compress.surgery import linear_layers
from hpo.errors import NonFinite
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus

SEQUENCES = 256
"""Calibration sequences whose gradients are squared: the sums of rows settle long before."""


def collect_row_fisher(model: nn.Module, corpus: Corpus) -> dict[str, Tensor]:
    """Return, for each linear layer, the sum over its columns of the mean squared gradient, (O,) float64.

    The gradient is that of one sequence's summed loss on its own next tokens (the empirical Fisher
    information). A layer's gradient is let go as soon as it is squared. The model stays as it is.

    Source: FWSVD, Hsu et al. 2022, arXiv:2207.00112.

    Raises:
        NonFinite: a gradient is NaN or infinite; names the layer.
    """
    device = next(model.parameters()).device
    sums: dict[str, Tensor] = {}

    def add(name: str, squares_O: Tensor) -> None:
        sums[name] = sums[name] + squares_O if name in sums else squares_O

    node, sequences = QuietNode(), corpus.sequences[:SEQUENCES]
    with _squaring(model, add), torch.enable_grad():
        for sequence in sequences:
            with node.working():
                ids_T = sequence.to(device)
                logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
                cross_entropy(logits_TV.float(), ids_T[1:], reduction="sum").backward()
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise NonFinite(f"a gradient of {name}.weight is NaN or infinite", "set model.dtype to float32")
    return {name: total / len(sequences) for name, total in sums.items()}


@contextmanager
def _squaring(model: nn.Module, add: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Hand the squared gradients of every linear layer, summed over columns, to `add`, and keep none."""

    def taker(name: str, module: nn.Module) -> Callable[[Tensor], None]:
        def take(weight: Tensor) -> None:
            gradient = weight.grad
            assert gradient is not None
            columns = 1 if isinstance(module, nn.Linear) else 0  # GPT-2's Conv1D is stored transposed
            add(name, gradient.double().square().sum(columns))
            weight.grad = None

        return take

    layers = [(name, module, module.get_parameter("weight")) for name, module in linear_layers(model)]
    before = [weight.requires_grad for _, _, weight in layers]
    handles = []
    for name, module, weight in layers:
        weight.requires_grad_(True)
        handles.append(weight.register_post_accumulate_grad_hook(taker(name, module)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for (_, _, weight), required in zip(layers, before, strict=True):
            weight.requires_grad_(required)
            weight.grad = None
