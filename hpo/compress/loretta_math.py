"""Tensor trains of thin matrices. Plain functions on tensors.

A core has shape (bond, site, next bond); outer bonds are 1. The sites of a matrix are those of its long side
and then its short side, the first slowest.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def bonds_of(sites: Sequence[int], largest: int) -> tuple[int, ...]:
    """Return the inner bonds: `largest`, or what the cut can carry if that is less."""
    cuts = range(1, len(sites))
    return tuple(min(largest, prod(sites[:cut]), prod(sites[cut:])) for cut in cuts)


def drawn_cores(
    sites: Sequence[int], bonds: Sequence[int], variance: float, generator: torch.Generator
) -> list[Tensor]:
    """Return random cores, float32, whose product has entries of mean 0 and the given variance.

    An entry is a sum over all bonds of products of one number a core, so n cores of variance v give
    ``prod(bonds) * v ** n``.
    """
    edges = (1, *bonds, 1)
    deviation = (variance / prod(bonds)) ** (0.5 / len(sites))
    return [
        torch.randn(edges[k], site, edges[k + 1], generator=generator) * deviation
        for k, site in enumerate(sites)
    ]


def contracted(cores: Sequence[Tensor]) -> Tensor:
    """Return the tensor that the cores stand for, its dimensions the sites."""
    whole = cores[0]
    for core in cores[1:]:
        whole = torch.tensordot(whole, core, dims=([-1], [0]))
    return whole.squeeze(0).squeeze(-1)
