"""One basis for several matrices, in float64. Plain functions on tensors.

Letters: N members of a group, O output features, I input features, K kept ranks. Each W has shape (O, I);
y = W x, and ``W ~ coefficients (O, K) @ basis (K, I)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.compress.svd_math import balanced, factor
from hpo.errors import NonFinite

PULL = 1e-6
"""How far coefficients fitted to a layer's own inputs are held to the common ones, as a share of the mean
energy of the basis on those inputs: directions its inputs do not have keep the common coefficients."""


@dataclass(frozen=True)
class Fitted:
    """Coefficients of one layer fitted to its own inputs, for every rank at once.

    The coefficients of rank r are ``left[:, :r] @ inner_r``, where `inner_r` is the leading r x r block of a
    lower triangular matrix, stored row by row, hence its first r (r + 1) / 2 numbers.
    """

    left: Tensor
    """Shape (O, K)."""
    packed: Tensor
    """The K (K + 1) / 2 numbers of the triangle."""

    def coefficients(self, rank: int) -> Tensor:
        """Return (O, rank), computed in float32 or better."""
        dtype = torch.promote_types(self.left.dtype, torch.float32)
        inner = self.packed.new_zeros((rank, rank), dtype=dtype)
        rows, columns = torch.tril_indices(rank, rank, device=inner.device)
        inner[rows, columns] = self.packed[: rank * (rank + 1) // 2].to(dtype)
        return self.left[:, :rank].to(dtype) @ inner


def shared_factors(
    weights: Sequence[Tensor], grams: Sequence[Tensor], keep: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return common coefficients (N of (O, K)), a basis (K, I), and all singular values, descending.

    The first r columns and rows minimise the sum over members of ||(W - W') S||_F^2 over all bases of r
    rows, where S S' is the sum of the members' Gram matrices (I, I) plus a ridge. With matrices one below
    the other this is a low-rank approximation of one tall matrix. (The paper's matrices act on rows of
    inputs, so there they stand side by side.)

    Source: Basis Sharing, Wang et al. 2024, arXiv:2410.03765.

    Raises:
        NonFinite: a weight or Gram matrix holds NaN or infinity.
    """
    total: Tensor = torch.stack([gram.double() for gram in grams]).sum(0)
    left, basis, singular = factor(torch.cat([weight.double() for weight in weights]), total, keep)
    common = left.split([len(weight) for weight in weights])
    return [part.clone() for part in common], basis, singular


def fitted(weight_OI: Tensor, gram_II: Tensor, basis_KI: Tensor, common_OK: Tensor) -> Fitted:
    """Return the coefficients C of a layer that minimise ||(W - C B) G^(1/2)||_F over its own inputs.

    The sum of Gram matrices that chose the basis B weighs every layer by the inputs of all; given B, each
    layer may answer to its own. The normal equations C (B G B') = W G B' are solved for every rank at
    once: with B G B' = L L', L lower triangular, rank r has ``(W G B' L^-T)[:, :r] @ (L^-1)[:r, :r]``.
    Both sides get `PULL` times the common coefficients, so that at full rank, where these are exact, they
    stay so whatever G is.

    Raises:
        NonFinite: the Gram matrix is far from positive semidefinite.
    """
    W, B, C = weight_OI.double(), basis_KI.double(), common_OK.double()
    seen_KI = B @ gram_II.double()
    square_KK = seen_KI @ B.T
    energy = square_KK.diagonal().mean()
    scale = torch.where(energy > 0, energy, 1.0)
    L, pull = _lower(square_KK / scale)
    inner = torch.linalg.solve_triangular(L, torch.eye(len(B), dtype=B.dtype, device=B.device), upper=False)
    left = (W @ seen_KI.T / scale + pull * C) @ inner.T
    rows, columns = torch.tril_indices(len(B), len(B), device=B.device)
    return Fitted(left, inner[rows, columns])


def _lower(square_KK: Tensor) -> tuple[Tensor, float]:
    """Return L with L L' = S + pull, and the pull, as small as can be: a Gram matrix kept in float32 may
    be slightly indefinite."""
    eye = torch.eye(len(square_KK), dtype=square_KK.dtype, device=square_KK.device)
    for power in range(6):
        pull = PULL * 10**power
        L, failed = torch.linalg.cholesky_ex(square_KK + pull * eye)
        if not failed:
            return L, pull
    raise NonFinite("a Gram matrix is not positive semidefinite", "check the calibration text")


def balanced_shared(coefficients: Sequence[Tensor], basis_RI: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return coefficients and a basis of the same products whose scales match, see `svd_math.balanced`."""
    left, right = balanced(torch.cat(list(coefficients)), basis_RI)
    return list(left.split([len(part) for part in coefficients])), right
