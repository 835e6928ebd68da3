"""Round to nearest: every weight to the nearest value of its group's grid, without data.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from hpo.compress.grid import Grid
from hpo.compress.layers.packed import Rounded, pack
from hpo.errors import NonFinite, Unsupported

LARGEST = torch.finfo(torch.float16).max
TINIEST = 2.0**-24
"""The smallest positive float16: a scale that rounded to zero would lose its group."""


@dataclass(frozen=True)
class RoundToNearest:
    """The quantizer that every other one is measured against."""

    grid: Grid
    key: ClassVar[str] = ""
    needs_gram: ClassVar[bool] = False

    @property
    def format(self) -> Grid:
        return self.grid

    @property
    def noise(self) -> float:
        """Measured on Gaussian weights in groups of 32, and larger in longer groups."""
        return 1.2 / float(2**self.grid.bits)

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> Rounded:
        """Return the weight on its grid; the Gram matrix is not used.

        Raises:
            NonFinite: the weight holds NaN or infinity.
            Unsupported: a weight is beyond float16, in which scales are kept.
        """
        check(weight_OI)
        groups_OGS = grouped(weight_OI.double(), self.grid)
        scales_OG, offsets_OG = symmetric(groups_OGS, self.grid.bits), None
        if not self.grid.symmetric:
            scales_OG, offsets_OG = shifted(groups_OGS, self.grid.bits)
        codes_OGS = codes(groups_OGS, scales_OG, offsets_OG, self.grid.bits)
        return on_grid(codes_OGS.flatten(1)[:, : weight_OI.shape[1]], scales_OG, offsets_OG, self.grid)


def symmetric(groups_OGS: Tensor, bits: int) -> Tensor:
    """Return the scale of each group, (O, G) float16, for values ``scale * code``, code in [-2^(bits-1),
    2^(bits-1)).

    There is one code more below zero than above. It goes to the weight of the largest magnitude, so a scale
    is negative where that weight is positive: all codes are in use, which at 2 bits almost halves the error
    (0.36 of the norm of Gaussian weights in groups of 32, against 0.66 with scales of largest / 1).
    """
    largest = groups_OGS.gather(-1, groups_OGS.abs().argmax(-1, keepdim=True))[..., 0]
    return half(largest / -(2 ** (bits - 1)))


def shifted(groups_OGS: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return scale and offset of each group, (O, G) float16, for values ``scale * code + offset``, code in
    [0, 2^bits): the smallest weight is the offset, the largest the last code."""
    offsets = groups_OGS.amin(-1).half()
    return half((groups_OGS.amax(-1) - offsets).clamp(min=0) / (2**bits - 1)), offsets


def codes(groups_OGS: Tensor, scales_OG: Tensor, offsets_OG: Tensor | None, bits: int) -> Tensor:
    """Return the nearest code of every weight, (O, G, S) uint8. Groups with a scale of zero get zero error
    only if their weights all equal what any code stands for: zero, or the offset."""
    first = 2 ** (bits - 1) if offsets_OG is None else 0
    shift = 0.0 if offsets_OG is None else offsets_OG.double()[..., None]
    scales = scales_OG.double()[..., None]
    steps = (groups_OGS - shift) / torch.where(scales == 0, 1.0, scales)
    return (steps.round() + first).clamp(0, 2**bits - 1).to(torch.uint8)


def on_grid(codes_OI: Tensor, scales_OG: Tensor, offsets_OG: Tensor | None, grid: Grid) -> Rounded:
    """Return the matrix of these codes, uint8, and scales and offsets, float16."""
    return Rounded(
        pack(codes_OI, grid.bits),
        scales_OG.view(torch.int16),
        None if offsets_OG is None else offsets_OG.view(torch.int16),
        bits=grid.bits,
        group_size=grid.group_size,
        columns=codes_OI.shape[1],
    )


def grouped(weight_OI: Tensor, grid: Grid) -> Tensor:
    """Return (O, G, S). A short last group is filled with its last weight, which changes no range."""
    columns = weight_OI.shape[1]
    groups = grid.groups(columns)
    missing = groups * (grid.group_size or columns) - columns
    padded = functional.pad(weight_OI[:, None], (0, missing), mode="replicate")[:, 0]
    return padded.reshape(len(weight_OI), groups, -1)


def half(scales: Tensor) -> Tensor:
    """Return float16, no scale but zero itself rounded to zero."""
    halves = scales.half()
    lost = (halves == 0) & (scales != 0)
    return torch.where(lost, torch.sign(scales).half() * TINIEST, halves)


def check(weight_OI: Tensor) -> None:
    """Refuse what no grid can hold.

    Raises:
        NonFinite: the weight holds NaN or infinity.
        Unsupported: a weight is beyond float16, in which scales are kept.
    """
    if not torch.isfinite(weight_OI).all():
        raise NonFinite("the weight holds NaN or infinity", "check the checkpoint")
    largest = float(weight_OI.abs().max())
    if largest > LARGEST:
        raise Unsupported(f"a weight of {largest:.3g} cannot be quantised", f"allowed: up to {LARGEST:.0f}")
