"""Tensor-train cores of one matrix, in float64. Plain functions on tensors.

A core has shape (bond, out site, in site, next bond); outer bonds are 1.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from hpo.compress.svd_math import factor


def full_cores(
    weight_OI: Tensor,
    out_sites: Sequence[int],
    in_sites: Sequence[int],
    largest: int,
    name: str = "the weight",
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the cores of a tensor train of W with bonds up to `largest`, and the spectrum at each cut.

    Slicing the bonds of these cores truncates: every core but the last is left-orthonormal and the
    k-th spectrum is that of the k-th unfolding (as left by the cuts before), so cutting bond k loses its tail
    and, together, ||W - W'||^2 <= sum of the tails, the bound of TT-SVD. One decomposition thus serves
    every bond dimension.

    Source: TT-SVD, Oseledets 2011 (SIAM J. Sci. Comput. 33); as an operator of n sites (MPO) as in
    CompactifAI, Tomut et al. 2024, arXiv:2401.14109.

    Raises:
        NonFinite: the weight holds NaN or infinity; says so by `name`.
    """
    rest, cores, spectra, bond = _sites_together(weight_OI, out_sites, in_sites), [], [], 1
    for o, i in zip(out_sites[:-1], in_sites[:-1], strict=True):
        unfolding = rest.reshape(bond * o * i, -1)
        keep = min(largest, *unfolding.shape)
        left, rest, singular = factor(unfolding, None, keep, name)
        cores.append(left.reshape(bond, o, i, keep))
        spectra.append(singular)
        bond = keep
    cores.append(rest.reshape(bond, out_sites[-1], in_sites[-1], 1))
    return cores, spectra


def share_lost(
    weight_OI: Tensor, out_sites: Sequence[int], in_sites: Sequence[int], bonds: Sequence[int]
) -> float:
    """Return the tails that bonds cut off, summed over the cuts, as a share of ||W||^2.

    Each cut is taken of W itself: the bound of TT-SVD without its cores.
    """
    tensor, rows, lost = _sites_together(weight_OI, out_sites, in_sites), 1, 0.0
    for o, i, bond in zip(out_sites, in_sites, bonds, strict=False):
        rows *= o * i
        unfolding = tensor.reshape(rows, -1)
        if bond < min(unfolding.shape):
            wide = unfolding if unfolding.shape[0] <= unfolding.shape[1] else unfolding.T
            energies = torch.linalg.eigvalsh(wide @ wide.T).clamp(min=0)
            lost += float(energies[: len(energies) - bond].sum() / energies.sum().clamp(min=1e-300))
    return lost


def _sites_together(weight_OI: Tensor, out_sites: Sequence[int], in_sites: Sequence[int]) -> Tensor:
    """Return W in float64, its indices ordered site by site: out and in of the first, of the second, ..."""
    n = len(out_sites)
    order = [axis for k in range(n) for axis in (k, n + k)]
    return weight_OI.double().reshape(*out_sites, *in_sites).permute(order)


def sliced(cores: Sequence[Tensor], bonds: Sequence[int]) -> list[Tensor]:
    """Return the cores with their inner bonds cut to `bonds`."""
    edges = (1, *bonds, 1)
    return [core[: edges[k], :, :, : edges[k + 1]] for k, core in enumerate(cores)]


def balanced_cores(cores: Sequence[Tensor]) -> list[Tensor]:
    """Return cores of the same product with equal Frobenius norms; TT-SVD leaves all scale in the last."""
    norms = [float(torch.linalg.vector_norm(core.double())) for core in cores]
    if min(norms) <= 0:
        return list(cores)
    target = prod(norms) ** (1 / len(norms))
    return [core * (target / norm) for core, norm in zip(cores, norms, strict=True)]
