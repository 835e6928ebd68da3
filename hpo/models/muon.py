"""The Muon optimiser, in float32 and batched over matrices of one shape.

Momentum whose update is replaced by the nearest semi-orthogonal matrix, by a Newton-Schulz iteration
(Keller Jordan and others, "Muon: An optimizer for hidden layers in neural networks", 2024,
https://kellerjordan.github.io/posts/muon/). `torch.optim.Muon` iterates in bfloat16, one matrix at a
time, which on a CPU takes most of a step of a small model.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic: chosen by its authors for slope at zero; singular values end in about [0.7, 1.2]."""
_ITERATIONS = 5


def orthogonalised(matrices_NOI: Tensor) -> Tensor:
    """Return about ``U V^T`` of each of N matrices ``U S V^T``, shape (N, O, I) as given."""
    wide = matrices_NOI.shape[-2] <= matrices_NOI.shape[-1]
    X = matrices_NOI if wide else matrices_NOI.mT
    norms: Tensor = torch.linalg.matrix_norm(X, keepdim=True)
    X = X / (norms + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = X @ X.mT
        X = a * X + (b * gram + c * gram @ gram) @ X
    return X if wide else X.mT


class Muon:
    """Steps matrices (2-D parameters); everything else belongs to another optimiser."""

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float = 0.95) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        self._groups = list(by_shape.values())
        self._momenta = [torch.zeros(len(group), *group[0].shape) for group in self._groups]
        self._momentum = momentum

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix by ``rate * sqrt(max(1, rows / columns))`` along its update."""
        for group, momenta in zip(self._groups, self._momenta, strict=True):
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            momenta.lerp_(gradients, 1 - self._momentum)
            nesterov = gradients.lerp(momenta, self._momentum)
            rows, columns = momenta.shape[1:]
            updates = orthogonalised(nesterov) * max(1.0, rows / columns) ** 0.5
            for parameter, update in zip(group, updates, strict=True):
                parameter.sub_(update, alpha=rate)
