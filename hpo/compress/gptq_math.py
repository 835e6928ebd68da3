"""GPTQ on plain tensors: round one column after the other, the later ones making up for it. In float64.

With H = G + damping and H^-1 = U'U, U upper triangular, rounding column j by e costs least if the columns k
after it move by -e U[j, k] / U[j, j]: what is left of the weighted error of W is then the sum over columns of
(e / U[j, j])^2 (Optimal Brain Surgeon, one column at a time). Float64 throughout: a Gram matrix of many equal
inputs is nearly singular, and what the columns pass on adds up over the whole row.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hpo.compress.clipping import best_grid, clipped_grid, output_error
from hpo.compress.grid import Grid
from hpo.compress.layers.packed import Rounded
from hpo.compress.rounding import grouped, on_grid
from hpo.errors import NonFinite

BLOCK = 128
"""Columns whose effect on all the later ones is applied at once, as one product of matrices."""

Fit = Callable[[Tensor, Grid], tuple[Tensor, Tensor | None]]
"""From groups, (O, G, S), to scales and, if the grid has any, offsets, (O, G)."""

_RAISE = 10.0
"""Factor of the damping where the matrix is not positive definite."""


def gptq(
    weight_OI: Tensor, gram_II: Tensor, grid: Grid, *, damping: float, act_order: bool, clip: bool
) -> Rounded:
    """Return the weight on its grid, fitted to inputs with the Gram matrix G = sum of x x'.

    `damping`, times the mean of G's diagonal, is added to that diagonal; ten times as much where that leaves
    a matrix that is not positive definite, and so on. Columns that read nothing but zeros are rounded to
    nearest and change no other.

    In the columns' own order the grid of a group is fitted to its weights as they stand when the group
    begins. With `act_order` columns come by falling diagonal of G, and every group keeps the grid of its
    weights as they are given, so that its columns may be far apart in time.

    With `clip` all is done a second time on grids that are fitted with clipping, by the error of the weights,
    and of the two the one with less weighted error is returned. It helps where groups have outliers: the
    perplexity of a small published model (stories260K, 4.64) came to 6.83 at 3 bits in whole rows, without
    it to 7.80.

    Source: GPTQ, Frantar et al. 2022, arXiv:2210.17323.

    Raises:
        NonFinite: the columns' corrections grew beyond all bounds.
    """
    order = torch.argsort(gram_II.diagonal(), descending=True, stable=True) if act_order else None
    root_II = inverse_root(gram_II if order is None else gram_II[order][:, order], damping)
    found = _rounded(Columns(weight_OI.double(), grid, order, clipped_grid), root_II)
    if not clip:
        return found
    both = found, _rounded(Columns(weight_OI.double(), grid, order, best_grid), root_II)
    return min(both, key=lambda each: output_error(weight_OI - each.dequantise(), gram_II))


def _rounded(columns: "Columns", root_II: Tensor) -> Rounded:
    for start, stop in blocks(len(root_II), columns.grid.group_size):
        errors = [_round_one(columns, root_II, column, stop) for column in range(start, stop)]
        columns.values_IO[stop:] -= root_II[start:stop, stop:].T @ torch.stack(errors)
    return columns.packed()


class Columns:
    """A matrix whose columns, in some order, are put on a grid one by one. Held transposed: a column is
    contiguous."""

    def __init__(self, weight_OI: Tensor, grid: Grid, order_I: Tensor | None, fit: Fit) -> None:
        """`order_I`: which column comes when; None as they stand, and grids fitted on the way."""
        count = weight_OI.shape[1]
        self.grid, self._fit_groups = grid, fit
        self.is_fitted = order_I is not None
        """Whether every group has its grid already."""
        self.order_I = torch.arange(count, device=weight_OI.device) if order_I is None else order_I
        self.values_IO = weight_OI.T[self.order_I].contiguous()
        self.codes_IO = torch.zeros_like(self.values_IO, dtype=torch.uint8)
        groups_OGS = grouped(weight_OI, grid)
        self.scales_OG, self.offsets_OG = (fit if self.is_fitted else clipped_grid)(groups_OGS, grid)
        self._groups = (self.order_I // (grid.group_size or count)).tolist()

    def round(self, column: int) -> Tensor:
        """Put a column on its group's grid; return what it stands for, (O,)."""
        group, first = self._groups[column], -(2 ** (self.grid.bits - 1))
        if not self.is_fitted and (column == 0 or group != self._groups[column - 1]):
            self._fit(column, group)
        scales = self.scales_OG[:, group].double()
        shift: Tensor | float = 0.0
        if self.offsets_OG is not None:
            first, shift = 0, self.offsets_OG[:, group].double()
        steps = (self.values_IO[column] - shift) / torch.where(scales == 0, 1.0, scales)
        codes = (steps.round() - first).clamp(0, 2**self.grid.bits - 1)
        self.codes_IO[column] = codes.to(torch.uint8)
        value: Tensor = scales * (codes + first) + shift
        return value

    def _fit(self, column: int, group: int) -> None:
        size = self.grid.group_size or len(self.values_IO)
        scales, offsets = self._fit_groups(self.values_IO[column : column + size].T[:, None], self.grid)
        self.scales_OG[:, group] = scales[:, 0]
        if self.offsets_OG is not None and offsets is not None:
            self.offsets_OG[:, group] = offsets[:, 0]

    def packed(self) -> Rounded:
        """Return the matrix, its columns as they stood.

        Raises:
            NonFinite: a scale is beyond float16.
        """
        parts = [self.scales_OG] if self.offsets_OG is None else [self.scales_OG, self.offsets_OG]
        if not all(torch.isfinite(part).all() for part in parts):
            raise NonFinite("GPTQ's corrections grew beyond float16", "raise damping")
        codes_IO = torch.empty_like(self.codes_IO)
        codes_IO[self.order_I] = self.codes_IO
        return on_grid(codes_IO.T.contiguous(), self.scales_OG, self.offsets_OG, self.grid)


def _round_one(columns: Columns, root_II: Tensor, column: int, stop: int) -> Tensor:
    """Round a column and let those up to `stop` make up for it; return what the rest is to make up for."""
    error_O = (columns.values_IO[column] - columns.round(column)) / root_II[column, column]
    columns.values_IO[column + 1 : stop] -= root_II[column, column + 1 : stop, None] * error_O
    return error_O


def blocks(columns: int, group_size: int) -> Iterator[tuple[int, int]]:
    """Return where blocks begin and end: about `BLOCK` columns, and none holds a part of a group and what
    lies beyond it, so that a group which begins has felt all that came before."""
    group = group_size or columns
    if group <= BLOCK:
        group *= BLOCK // group
    for begin in range(0, columns, group):
        end = min(begin + group, columns)
        for start in range(begin, end, max(BLOCK, 1)):
            yield start, min(start + BLOCK, end)


def inverse_root(gram_II: Tensor, damping: float) -> Tensor:
    """Return U, upper triangular, with U'U = (G + damping times its mean diagonal)^-1.

    A row and column of zeros counts as an input of mean size that goes with no other. A matrix that is not
    positive definite is damped ten times as much, until it is.
    """
    H = gram_II.double().clone()
    diagonal = H.diagonal()
    mean = diagonal.mean()
    mean = torch.where(mean > 0, mean, 1.0)
    diagonal[diagonal <= 0] = mean
    while True:
        damped = H + damping * mean * torch.eye(len(H), dtype=H.dtype, device=H.device)
        # H = R R' with R upper triangular is the Cholesky factor of H turned round; then U = R^-1.
        lower, info = torch.linalg.cholesky_ex(damped.flip(0, 1))
        if not info:
            root = lower.flip(0, 1)
            identity = torch.eye(len(H), dtype=H.dtype, device=H.device)
            found: Tensor = torch.linalg.solve_triangular(root, identity, upper=True)
            return found
        damping *= _RAISE
