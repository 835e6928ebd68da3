"""Orders of neurons and heads, in which a matrix product operator loses less. Plain functions on tensors.

The neurons of an MLP and the heads of an attention layer may be numbered at will, and how much a matrix
product operator loses depends on the numbering. An order is a list of old numbers: place n of the new order
holds what was number ``order[n]``.

Letters: N neurons, H heads, F features.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def sizes(matrices_NF: Sequence[Tensor]) -> Tensor:
    """Return how much each neuron is of its matrices: the mean of its shares of their energies, (N,)."""
    energies = [matrix.double().square().sum(dim=1) for matrix in matrices_NF]
    shares = [energy / energy.sum().clamp(min=1e-300) for energy in energies]
    return torch.stack(shares).mean(dim=0)


def by_size(sizes_N: Tensor, sites: Sequence[int], slowest: int) -> Tensor:
    """Return the order in which neurons grow along the places, site `slowest` varying last, (N,).

    A place is a number of which the sites are the digits. Neurons of like size then share their digit
    at that site, and the small ones a few values of it: its side of a cut has a few large directions and
    many small ones.
    """
    places = torch.arange(prod(sites), device=sizes_N.device).reshape(tuple(sites))
    others = [site for site in range(len(sites)) if site != slowest]
    order = torch.empty_like(places.reshape(-1))
    order[places.permute(slowest, *others).reshape(-1)] = sizes_N.argsort(stable=True)
    return order


def heads_by_size(sizes_H: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return orders of the groups of heads that share keys and values, and of all heads, each by size.

    Groups stay together, and heads in their group.
    """
    members = torch.arange(len(sizes_H), device=sizes_H.device).reshape(groups, -1)
    grouped = sizes_H.reshape(groups, -1)
    group_order = grouped.sum(dim=1).argsort(stable=True)
    within = grouped.argsort(dim=1, stable=True)
    return group_order, members.gather(1, within)[group_order].reshape(-1)


def widened(order_H: Tensor, width: int) -> Tensor:
    """Return the order of features when each entry of `order_H` stands for `width` neighbours."""
    return (order_H[:, None] * width + torch.arange(width, device=order_H.device)).reshape(-1)
