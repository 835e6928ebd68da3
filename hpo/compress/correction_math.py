"""Low rank on top of few bits: the best factors of what quantization loses. In float64, on plain tensors.

Errors are weighted by a layer's inputs: with G = X'X over the calibration text, ``||(W - W') X'||_F^2`` is
``tr((W - W') G (W - W')')``. Without G they are plain Frobenius norms.

Letters: O output features, I input features, R rank. W has shape (O, I); y = W x.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.compress.layers.packed import Packed
from hpo.compress.quantizer import Quantizer
from hpo.compress.svd_math import factor


@dataclass(frozen=True)
class Factors:
    """``left @ right``, of rank R, and what it leaves of the matrix it stands for."""

    left: Tensor
    """(O, R)."""
    right: Tensor
    """(R, I)."""
    error: float
    """The weighted squared error."""
    packed: tuple[Packed, Packed] | None = None
    """Where they are in few bits: left transposed, (R, O), and right, (R, I), whose values stand above."""

    @property
    def product(self) -> Tensor:
        """Return what they stand for, (O, I)."""
        return self.left @ self.right


@dataclass(frozen=True)
class Split:
    """A matrix as a backbone in few bits and factors of what that leaves."""

    backbone: Packed
    factors: Factors

    @property
    def error(self) -> float:
        """The weighted squared error of the two together."""
        return self.factors.error


def weighted_error(error_OI: Tensor, gram_II: Tensor | None) -> float:
    """Return the squared norm of an error, weighted by the inputs, in float64."""
    E = error_OI.double()
    weighted = E if gram_II is None else E @ gram_II.double()
    return max(float((weighted * E).sum()), 0.0)


def split(
    weight_OI: Tensor,
    gram_II: Tensor | None,
    quantizer: Quantizer,
    rank: int,
    iterations: int = 1,
    of_factors: Quantizer | None = None,
) -> Split:
    """Return W as Q + left right: in turn, Q takes W - left right, and the factors take W - Q.

    One iteration corrects a quantized W: the factors are the weighted best of its residual (EoRA, Liu et al.
    2024, arXiv:2410.21271; QERA, Zhang et al. 2024, arXiv:2410.06040). More of them are CALDERA (Saha et al.
    2024, arXiv:2405.18886): the factors take what the grid holds badly. Where that ends depends on who
    begins, so each does once, the quantizer and the factors (which took 10 to 15 % more off the error of
    most layers of a small trained model). Rounding is no projection, so an iteration may undo part of the
    one before: the best of all is returned, and more iterations are never worse.
    `of_factors` puts the factors into few bits as well, see `quantised_factors`.

    Raises:
        NonFinite: the weight or the Gram matrix holds NaN or infinity.
    """
    W = weight_OI.double()
    starts = [torch.zeros_like(W)]
    if iterations > 1 and rank > 0:
        starts.append(low_rank(W, gram_II, rank).product)
    found = [
        each
        for start in starts
        for each in _alternating(W, gram_II, quantizer, rank, start, iterations, of_factors)
    ]
    return min(found, key=lambda each: each.error)


def _alternating(
    W: Tensor,
    gram_II: Tensor | None,
    quantizer: Quantizer,
    rank: int,
    product_OI: Tensor,
    iterations: int,
    of_factors: Quantizer | None,
) -> Iterator[Split]:
    for _ in range(iterations if rank > 0 else 1):
        backbone = quantizer.quantise(W - product_OI, gram_II)
        factors = low_rank(W - backbone.dequantise().double(), gram_II, rank, of_factors)
        product_OI = factors.product
        yield Split(backbone, factors)


def low_rank(
    matrix_OI: Tensor, gram_II: Tensor | None, rank: int, quantizer: Quantizer | None = None
) -> Factors:
    """Return the weighted best factors of a matrix, in few bits if there is a quantizer."""
    if rank == 0:
        M = matrix_OI.double()
        return Factors(M[:, :0], M[:0], weighted_error(M, gram_II))
    if quantizer is not None:
        return quantised_factors(matrix_OI, gram_II, rank, quantizer)
    left, right, _ = factor(matrix_OI, gram_II, rank)
    return Factors(left, right, weighted_error(matrix_OI.double() - left @ right, gram_II))


def quantised_factors(
    matrix_OI: Tensor, gram_II: Tensor | None, rank: int, quantizer: Quantizer, iterations: int = 1
) -> Factors:
    """Return factors in few bits whose second makes up for the rounding of the first.

    Left is the weighted best basis, rounded; right the least squares answer to the rounded left, rounded in
    its turn; and with more iterations left answers to right again, and so on. The best is returned.

    Source: LPLR, Saha et al. 2023, arXiv:2310.11028; there the basis is sketched, here it is exact.

    Raises:
        NonFinite: the matrix or the Gram matrix holds NaN or infinity.
    """
    M = matrix_OI.double()
    left, _, _ = factor(M, gram_II, rank)
    best: Factors | None = None
    for _ in range(iterations):
        # Groups run along the features: those of a rank are of one scale, those of a feature are not.
        packed_left = quantizer.quantise(left.T, None)
        left = packed_left.dequantise().double().T
        packed_right = quantizer.quantise(right_for(left, M), gram_II)
        right = packed_right.dequantise().double()
        error = weighted_error(M - left @ right, gram_II)
        if best is None or error < best.error:
            best = Factors(left, right, error, (packed_left, packed_right))
        left = left_for(right, M, gram_II)
    assert best is not None
    return best


_CUT = 1e-8
"""Eigenvalues below this share of the largest count as zero: after coarse rounding, factors of some ranks
are alike or nothing, and an answer to the difference would be all noise."""


def right_for(left_OR: Tensor, matrix_OI: Tensor) -> Tensor:
    """Return the right factor that goes best with a left one. It is the same whatever weights the inputs."""
    inverse = torch.linalg.pinv(left_OR.T @ left_OR, rtol=_CUT, hermitian=True)
    right: Tensor = inverse @ (left_OR.T @ matrix_OI)
    return right


def left_for(right_RI: Tensor, matrix_OI: Tensor, gram_II: Tensor | None) -> Tensor:
    """Return the left factor that goes best with a right one, for weighted inputs: M G R' (R G R')^+."""
    weighted = right_RI if gram_II is None else right_RI @ gram_II.double()
    inverse = torch.linalg.pinv(weighted @ right_RI.T, rtol=_CUT, hermitian=True)
    left: Tensor = (matrix_OI @ weighted.T) @ inverse
    return left
