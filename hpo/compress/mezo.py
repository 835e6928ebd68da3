"""MeZO: training with forward passes alone, in the memory of inference.

Source: Malladi et al. 2023, "Fine-Tuning Language Models with Just Forward Passes", arXiv:2305.17333.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def shift(weights: Sequence[Tensor], seed: int, by: float) -> None:
    """Move all weights in place by ``by * z``, z standard normal and the same again for the same seed.

    z is drawn one weight after the other and never kept, so the extra memory is that of one weight.
    """
    generator = torch.Generator(weights[0].device).manual_seed(seed)
    for weight in weights:
        z = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
        weight.add_(z, alpha=by)


@torch.no_grad()
def mezo_step(
    weights: Sequence[Tensor], loss: Callable[[], float], seed: int, rate: float, perturbation: float
) -> float:
    """Take one step of zeroth-order SGD in place; return the mean of the two losses.

    The slope along z is ``(loss(w + e z) - loss(w - e z)) / 2 e`` with e the perturbation, and the weights
    move by ``-rate * slope * z``. If a loss is not finite the weights end where they began.
    """
    shift(weights, seed, perturbation)
    above = loss()
    shift(weights, seed, -2 * perturbation)
    below = loss()
    slope = (above - below) / (2 * perturbation)
    mean = (above + below) / 2
    finite = abs(mean) < float("inf")
    shift(weights, seed, perturbation - (rate * slope if finite else 0.0))
    return mean
