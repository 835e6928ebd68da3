"""Which weights of a matrix become zero, and what the others then should be. Plain functions on tensors, in
float64.

Letters: O output features (rows), I input features (columns), S columns of a slice; L lines of C scores.
W has shape (O, I); y = W x; G is the sum of x x' over a layer's inputs, (I, I).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.compress.gptq_math import inverse_root
from hpo.compress.sparse_pattern import NOfM, Pattern, Unstructured
from hpo.errors import NonFinite, Unsupported


@dataclass(frozen=True)
class Thinned:
    """A matrix with zeros."""

    weight: Tensor
    """(O, I), zero wherever the mask is false; a weight that stays may be zero as well."""
    mask: Tensor
    """(O, I) bool, which weights stay: exactly as many as the pattern says."""


def largest(scores_OI: Tensor, pattern: Pattern) -> Tensor:
    """Return the mask, bool, of the largest scores that a pattern lets stay; of equal ones the first.

    Raises:
        NonFinite: a score is NaN or infinite.
        Unsupported: the matrix cannot have the pattern.
    """
    rows, columns = scores_OI.shape
    _check_pattern(pattern, rows, columns)
    if isinstance(pattern, NOfM):
        lines, count = scores_OI.reshape(-1, pattern.group), pattern.kept
    elif isinstance(pattern, Unstructured) and pattern.by_row:
        lines, count = scores_OI, pattern.non_zeros(1, columns)
    else:
        lines, count = scores_OI.reshape(1, -1), pattern.non_zeros(rows, columns)
    return largest_of_each(lines, count).reshape(rows, columns)


def largest_of_each(scores_LC: Tensor, count: int) -> Tensor:
    """Return the mask, bool, of the `count` largest scores of each line; of equal ones the first.

    Raises:
        NonFinite: a score is NaN or infinite.
    """
    if not torch.isfinite(scores_LC).all():
        raise NonFinite("a weight or an input is NaN or infinite", "set model.dtype to float32")
    columns = scores_LC.shape[1]
    if count == 0:
        return torch.zeros_like(scores_LC, dtype=torch.bool)
    threshold = scores_LC.kthvalue(columns - count + 1, dim=1, keepdim=True).values
    above = scores_LC > threshold
    ties = scores_LC == threshold
    missing = count - above.sum(1, keepdim=True)
    return above | (ties & (ties.cumsum(1) <= missing))


def magnitudes(weight_OI: Tensor) -> Tensor:
    """Return |W|, (O, I). Source: Han et al. 2015, arXiv:1506.02626."""
    return weight_OI.abs()


def activations(weight_OI: Tensor, gram_II: Tensor) -> Tensor:
    """Return |W| times the norm of each input over the calibration text, (O, I).

    Source: Wanda, Sun et al. 2023, arXiv:2306.11695.
    """
    return weight_OI.abs().double() * gram_II.diagonal().double().clamp(min=0).sqrt()


def thinned(weight_OI: Tensor, mask_OI: Tensor) -> Thinned:
    """Return a matrix with zeros where a mask is false, nothing else changed."""
    return Thinned(torch.where(mask_OI, weight_OI, 0), mask_OI)


def updated(
    weight_OI: Tensor, gram_II: Tensor, pattern: Pattern, damping: float, slice_columns: int
) -> Thinned:
    """Return a matrix with zeros whose other weights make up for them, float64.

    Column after column, from the first, weights become zero, and the columns that follow compensate what
    that does to the outputs (optimal brain surgery). With U'U the inverse of ``G + damping * mean(diag G)``,
    U upper triangular, the loss of w_j then costs ``w_j^2 / u_jj^2`` and moves the later columns k by
    ``-w_j u_jk / u_jj``. Which weights go is chosen for a slice of columns at a time, among all of its
    weights (or those of a row, where the pattern counts by row); in an N:M pattern for a group at a time.

    Inputs that the text never has cost nothing: their weights go first, and those that stay are left as
    they are.

    Source: SparseGPT, Frantar and Alistarh 2023, arXiv:2301.00774.

    Raises:
        NonFinite: the weight or the Gram matrix holds NaN or infinity.
        Unsupported: the matrix cannot have the pattern.
    """
    columns = weight_OI.shape[1]
    _check(weight_OI, gram_II, pattern)
    root_II = inverse_root(gram_II, damping)
    prices_I = torch.where(gram_II.diagonal() > 0, root_II.diagonal() ** -2, 0.0)
    # Transposed, a column is contiguous.
    values_IO = weight_OI.double().T.contiguous()
    mask_IO = torch.ones_like(values_IO, dtype=torch.bool)
    unit = pattern.group if isinstance(pattern, NOfM) else slice_columns
    for start in range(0, columns, step := _whole_units(unit)):
        stop = min(start + step, columns)
        errors_SO = torch.zeros_like(values_IO[start:stop])
        for column in range(start, stop):
            if column % unit == 0:
                end = min(column + unit, columns)
                costs_OS = (values_IO[column:end].square() * prices_I[column:end, None]).T
                mask_IO[column:end] = _cheap_gone(costs_OS, pattern, column, columns).T
            gone_O = torch.where(mask_IO[column], 0.0, values_IO[column])
            errors_SO[column - start] = gone_O / root_II[column, column]
            values_IO[column] -= gone_O
            later = root_II[column, column + 1 : stop, None]
            values_IO[column + 1 : stop] -= later * errors_SO[column - start]
        values_IO[stop:] -= root_II[start:stop, stop:].T @ errors_SO
    return Thinned(values_IO.T.contiguous(), mask_IO.T.contiguous())


_TOGETHER = 128
"""Columns, about, whose effect on all the later ones is applied at once, as one product of matrices."""


def _whole_units(unit: int) -> int:
    return max(_TOGETHER // unit, 1) * unit


def _cheap_gone(costs_OS: Tensor, pattern: Pattern, begin: int, columns: int) -> Tensor:
    """Return the mask, (O, S), of a slice that begins at a column: its share of the zeros goes, so that in
    the end as many have gone as the pattern says."""
    rows, width = costs_OS.shape
    if isinstance(pattern, NOfM):
        return largest(costs_OS, pattern)
    by_row = isinstance(pattern, Unstructured) and pattern.by_row
    lines = costs_OS if by_row else costs_OS.reshape(1, -1)
    height = 1 if by_row else rows
    zeros = height * columns - pattern.non_zeros(height, columns)
    gone = zeros * (begin + width) // columns - zeros * begin // columns
    return largest_of_each(lines, height * width - gone).reshape(rows, width)


def _check(weight_OI: Tensor, gram_II: Tensor, pattern: Pattern) -> None:
    _check_pattern(pattern, *weight_OI.shape)
    for name, tensor in (("weight", weight_OI), ("Gram matrix", gram_II)):
        if not torch.isfinite(tensor).all():
            raise NonFinite(f"the {name} holds NaN or infinity", "set model.dtype to float32")


def _check_pattern(pattern: Pattern, rows: int, columns: int) -> None:
    if fault := pattern.fault(rows, columns):
        raise Unsupported(f"{pattern}: {fault}", "choose another pattern")
