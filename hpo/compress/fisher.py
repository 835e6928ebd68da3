"""How much the loss of a calibration text minds a change of each row of each weight matrix.

Letters: O output features, I input features.
"""

import torch
from torch import Tensor, nn

from hpo.compress.gradients import run_gradients
from hpo.errors import NonFinite
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
    sums: dict[str, Tensor] = {}

    def add(name: str, gradient_OI: Tensor) -> None:
        squares_O = gradient_OI.double().square().sum(1)
        sums[name] = sums[name] + squares_O if name in sums else squares_O

    sequences = corpus.sequences[:SEQUENCES]
    run_gradients(model, sequences, add)
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise NonFinite(f"a gradient of {name}.weight is NaN or infinite", "set model.dtype to float32")
    return {name: total / len(sequences) for name, total in sums.items()}
