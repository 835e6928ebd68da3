"""Weights by groups of a row, each of which has a scale.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from torch import Tensor
from torch.nn import functional


def in_groups(weight_OI: Tensor, group_size: int) -> Tensor:
    """Return (O, G, S); group size 0 stands for whole rows. A short last group is filled with zeros."""
    rows, columns = weight_OI.shape
    size = group_size or columns
    return functional.pad(weight_OI, (0, -columns % size)).reshape(rows, -1, size)
