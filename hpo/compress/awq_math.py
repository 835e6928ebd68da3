"""AWQ on plain tensors: columns that read large inputs are scaled up before they are rounded.

Which scale, and which clipping, is decided by the weighted error tr((W - W') G (W - W')') of a layer's
outputs. These errors are in float32: they only tell candidates apart, and there are many. What is kept is
computed in float64.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.compress.grid import Grid
from hpo.compress.layers.packed import Rounded
from hpo.compress.layers.scaled import Scaled
from hpo.compress.rounding import LARGEST, RoundToNearest, codes, grouped, on_grid, shifted, symmetric

SHARES = tuple(1 - step / 20 for step in range(11))
"""Of a group's range, at which clipping is tried: from all of it to half."""

SMALLEST_MAGNITUDE = 1e-4
"""Channels are raised to this share of the largest: one that was silent on the calibration text gets a scale
that float16 can hold."""


@dataclass(frozen=True)
class Trial:
    """A matrix on a grid after its columns were scaled, and the weighted error of it."""

    codes: Rounded
    reciprocals: Tensor
    """(I,) float16."""
    error: float

    @property
    def packed(self) -> Scaled:
        of = self.codes
        reciprocals = self.reciprocals.view(torch.int16)
        return Scaled(of.codes, of.scales, of.offsets, reciprocals, bits=of.bits, group_size=of.group_size)


def awq(weight_OI: Tensor, gram_II: Tensor | None, grid: Grid, *, steps: int, clip: bool) -> Scaled:
    """Return the weight with scaled columns on its grid, fitted to inputs with the Gram matrix G.

    The scale of a column is a power alpha, from 0 to 1 in `steps` steps, of the size of what it reads. With
    `clip`, the range of each group is narrowed to what is best for its own share of the outputs. Of all
    that is tried the least weighted error is taken, so it is never above that of rounding to nearest (alpha
    0, nothing clipped). Without a Gram matrix all columns are alike: nothing is scaled, and clipping goes by
    the plain error.

    The paper clips once alpha is chosen. Here every alpha is judged with its ranges clipped, which for some
    four times the work takes a little more off (at 4 bits in groups of 32, 29 % of the error of a small
    trained model's layers in place of 27 %).

    Source: AWQ, Lin et al. 2023, arXiv:2306.00978.

    Raises:
        NonFinite: the weight holds NaN or infinity.
        Unsupported: a weight is beyond float16, in which scales are kept.
    """
    return min(_tried(weight_OI.double(), gram_II, grid, steps, clip), key=lambda trial: trial.error).packed


def _tried(W: Tensor, gram_II: Tensor | None, grid: Grid, steps: int, clip: bool) -> Iterator[Trial]:
    for reciprocals_I in _powers(W, gram_II, steps):
        yield _rounded(W, gram_II, grid, reciprocals_I)
        if clip:
            yield _clipped(W, gram_II, grid, reciprocals_I)


def _powers(W: Tensor, gram_II: Tensor | None, steps: int) -> Iterator[Tensor]:
    """Yield what undoes the scales of every alpha, (I,) float16, none first."""
    yield torch.ones(W.shape[1], dtype=torch.float16, device=W.device)
    if gram_II is None:
        return
    magnitude_I = gram_II.diagonal().double().clamp(min=0).sqrt()
    for step in range(1, steps + 1):
        found = reciprocals(magnitude_I, step / steps)
        if float((W / found.double()).abs().max()) <= LARGEST:
            yield found


def reciprocals(magnitude_I: Tensor, alpha: float) -> Tensor:
    """Return what scaled columns are multiplied with to undo it, (I,) float16: 1 / magnitude^alpha, the
    smallest and the largest as far from 1 as each other."""
    top = magnitude_I.max()
    if top <= 0:
        return torch.ones_like(magnitude_I, dtype=torch.float16)
    powers = magnitude_I.clamp(min=float(top) * SMALLEST_MAGNITUDE) ** alpha
    return ((powers.max() * powers.min()).sqrt() / powers).half()


def error(difference_OI: Tensor, gram_II: Tensor | None) -> float:
    """Return tr(D G D'), or without G the squared norm."""
    D = difference_OI.float()
    weighted = D if gram_II is None else D @ gram_II.float()
    return float((weighted * D).sum(dtype=torch.float64))


def _rounded(W: Tensor, gram_II: Tensor | None, grid: Grid, reciprocals_I: Tensor) -> Trial:
    found = RoundToNearest(grid).quantise(W / reciprocals_I.double())
    return _trial(W, gram_II, found, reciprocals_I)


def _trial(W: Tensor, gram_II: Tensor | None, found: Rounded, reciprocals_I: Tensor) -> Trial:
    values = found.dequantise() * reciprocals_I.float()
    return Trial(found, reciprocals_I, error(W - values, gram_II))


def _clipped(W: Tensor, gram_II: Tensor | None, grid: Grid, reciprocals_I: Tensor) -> Trial:
    """Return the scaled matrix with each group's range cut to the share that is best for it alone."""
    back = reciprocals_I.double()
    groups_OGS = grouped(W / back, grid)
    weights_GSS = _blocks(gram_II, back, *groups_OGS.shape[1:])
    found = [clipped_grid(groups_OGS, grid, share) for share in SHARES]
    coarse_OGS = groups_OGS.float()
    errors = [
        _block_errors(coarse_OGS - nearest(coarse_OGS, *each, grid.bits), weights_GSS) for each in found
    ]
    best_OG = torch.stack(errors).argmin(0)
    scales_OG, offsets_OG = _chosen([each[0] for each in found], best_OG), None
    if not grid.symmetric:
        offsets_OG = _chosen([each[1] for each in found if each[1] is not None], best_OG)
    codes_OGS = codes(groups_OGS, scales_OG, offsets_OG, grid.bits)
    made = on_grid(codes_OGS.flatten(1)[:, : W.shape[1]], scales_OG, offsets_OG, grid)
    return _trial(W, gram_II, made, reciprocals_I)


def _chosen(each_OG: Sequence[Tensor], best_OG: Tensor) -> Tensor:
    return torch.stack(list(each_OG)).gather(0, best_OG[None])[0]


def clipped_grid(groups_OGS: Tensor, grid: Grid, share: float) -> tuple[Tensor, Tensor | None]:
    """Return scales and offsets, (O, G) float16, of groups whose weights are cut at a share of the largest
    magnitude."""
    if grid.symmetric:
        return symmetric(groups_OGS * share, grid.bits), None
    limit = share * groups_OGS.abs().amax(-1, keepdim=True)
    return shifted(groups_OGS.clamp(-limit, limit), grid.bits)


def nearest(groups_OGS: Tensor, scales_OG: Tensor, offsets_OG: Tensor | None, bits: int) -> Tensor:
    """Return the values on their grids that are nearest to weights, (O, G, S), in the weights' precision."""
    first = 0 if offsets_OG is not None else -(2 ** (bits - 1))
    scales = scales_OG[..., None].to(groups_OGS.dtype)
    shift = torch.zeros_like(scales) if offsets_OG is None else offsets_OG[..., None].to(groups_OGS.dtype)
    steps = (groups_OGS - shift) / torch.where(scales == 0, 1.0, scales)
    return steps.round_().clamp_(first, first + 2**bits - 1).mul_(scales).add_(shift)


def _blocks(gram_II: Tensor | None, reciprocals_I: Tensor, count: int, size: int) -> Tensor:
    """Return the blocks on the diagonal of the scaled inputs' Gram matrix, (G, S, S) float32; what fills up
    the last group weighs nothing."""
    columns = len(reciprocals_I)
    blocks = torch.zeros(count, size, size, device=reciprocals_I.device)
    for group in range(count):
        inside = slice(group * size, min((group + 1) * size, columns))
        back = reciprocals_I[inside]
        block = torch.eye(len(back), device=back.device) if gram_II is None else gram_II[inside, inside]
        blocks[group, : len(back), : len(back)] = back[:, None] * block.double() * back
    return blocks


def _block_errors(difference_OGS: Tensor, weights_GSS: Tensor) -> Tensor:
    D = difference_OGS.float().transpose(0, 1)
    found: Tensor = ((D @ weights_GSS) * D).sum(-1).T
    return found
