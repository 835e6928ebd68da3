"""What heads and MLP units are worth. Plain functions on tensors, float64.

Letters: O output features, I input features, N items (heads or units), each of which is as many channels as
the others and stands before the next.
"""

import torch
from torch import Tensor


def wanda_scores(weight_OI: Tensor, norm_I: Tensor) -> Tensor:
    """Return the sum over a column of |W_ij| times the norm ||x_j|| of what it reads, (I,).

    Source: Wanda, Sun et al. 2023, arXiv:2306.11695, summed for structures as Wanda-sp in FLAP, An et al.
    2023, arXiv:2312.11983.
    """
    return weight_OI.double().abs().sum(0) * norm_I.double()


def fluctuation_scores(weight_OI: Tensor, variance_I: Tensor) -> Tensor:
    """Return the variance of what a column reads times its squared norm, Var(x_j) ||W_:j||^2, (I,): the mean
    squared error of the outputs when x_j is held at its mean.

    Source: FLAP, An et al. 2023, arXiv:2312.11983.
    """
    return weight_OI.double().square().sum(0) * variance_I.double()


def standardised(scores_I: Tensor) -> Tensor:
    """Return the scores of one module with mean 0 and (sample) standard deviation 1; zeros where all are one
    value."""
    centred = scores_I - scores_I.mean()
    deviation = centred.norm() / max(len(scores_I) - 1, 1) ** 0.5
    return centred / deviation if float(deviation) > 0 else torch.zeros_like(scores_I)


def by_item(scores_I: Tensor, items: int) -> Tensor:
    """Return the channels of each item, (N, channels)."""
    return scores_I.reshape(items, -1)


def lost_mean(weight_OI: Tensor, mean_I: Tensor, kept_K: Tensor) -> Tensor:
    """Return what the columns that are not kept give on average, W_:j mean(x_j) summed over them, (O,)."""
    left = mean_I.double().clone()
    left[kept_K] = 0
    return weight_OI.double() @ left
