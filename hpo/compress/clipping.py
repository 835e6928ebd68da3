"""Grids of groups whose range is cut: most weights come nearer to their codes, and the largest are clipped.

Errors here are in float32: they only tell candidates apart, and there are many.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.compress.grid import Grid
from hpo.compress.rounding import shifted, symmetric

SHARES = tuple(1 - step / 20 for step in range(11))
"""Of a group's range, at which clipping is tried: from all of it to half."""


def best_grid(
    groups_OGS: Tensor, grid: Grid, weights_GSS: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return scale and offset, if the grid has one, of each group, (O, G) float16, its range cut to where the
    least is lost: an error d of a group's row counts d W d', or without weights d d'."""
    coarse = groups_OGS.float()
    found = [clipped_grid(groups_OGS, grid, share) for share in SHARES]
    errors = [_squared(coarse - nearest(coarse, *each, grid.bits), weights_GSS) for each in found]
    best_OG = torch.stack(errors).argmin(0)
    scales = _chosen([each[0] for each in found], best_OG)
    if grid.symmetric:
        return scales, None
    return scales, _chosen([each[1] for each in found if each[1] is not None], best_OG)


def clipped_grid(groups_OGS: Tensor, grid: Grid, share: float = 1.0) -> tuple[Tensor, Tensor | None]:
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


def output_error(difference_OI: Tensor, gram_II: Tensor | None) -> float:
    """Return tr(D G D'), or without G the squared norm."""
    D = difference_OI.float()
    weighted = D if gram_II is None else D @ gram_II.float()
    return float((weighted * D).sum(dtype=torch.float64))


def _squared(difference_OGS: Tensor, weights_GSS: Tensor | None) -> Tensor:
    if weights_GSS is None:
        return difference_OGS.square().sum(-1)
    D = difference_OGS.transpose(0, 1)
    found: Tensor = ((D @ weights_GSS) * D).sum(-1).T
    return found


def _chosen(each_OG: Sequence[Tensor], best_OG: Tensor) -> Tensor:
    return torch.stack(list(each_OG)).gather(0, best_OG[None])[0]
