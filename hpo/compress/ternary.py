"""Ternary weights: -1, 0 or 1 times a scale.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from hpo.compress.layers.ternary import Ternary, pack_trits
from hpo.compress.quantize import GroupKnobs, Quantize
from hpo.compress.quantize_groups import in_groups
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import check, half
from hpo.compress.trits import Trits

Scale = Literal["absmean", "fitted"]


class TernaryKnobs(GroupKnobs):
    """The groups, and their scales."""

    group_size: int = Field(default=0, ge=0, le=4096)
    """Weights of a row that share a scale; 0: all of them."""
    scale: Scale = "fitted"
    """The mean of all magnitudes, as the paper has it, or that of the weights that are not rounded to zero:
    the best for the same codes."""


@dataclass(frozen=True)
class TernaryQuantizer:
    """Divides by the mean magnitude of a group and rounds to -1, 0 or 1."""

    form: Trits
    scale: Scale = "fitted"
    needs_gram: ClassVar[bool] = False

    @property
    def key(self) -> str:
        return f"{self.scale}-"

    @property
    def format(self) -> Trits:
        return self.form

    @property
    def noise(self) -> float:
        """Measured on Gaussian weights."""
        return 0.46 if self.scale == "fitted" else 0.51

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> Ternary:
        """Return the weight in three values a group; the Gram matrix is not used.

        Raises:
            NonFinite: the weight holds NaN or infinity.
            Unsupported: a weight is beyond float16, in which scales are kept.
        """
        check(weight_OI)
        columns = weight_OI.shape[1]
        groups_OGS = in_groups(weight_OI.double(), self.form.group_size)
        means_OG = mean_magnitudes(groups_OGS, columns)
        codes_OGS = trits(groups_OGS, means_OG)
        scales_OG = means_OG if self.scale == "absmean" else fitted_scales(groups_OGS, codes_OGS)
        return Ternary(
            pack_trits(codes_OGS.flatten(1)[:, :columns]),
            half(scales_OG).view(torch.int16),
            group_size=self.form.group_size,
            columns=columns,
        )


def mean_magnitudes(groups_OGS: Tensor, columns: int) -> Tensor:
    """Return the mean of |w| of each group, (O, G); zeros beyond the last column do not count."""
    size = groups_OGS.shape[2]
    counts = (columns - torch.arange(groups_OGS.shape[1], device=groups_OGS.device) * size).clamp(max=size)
    return groups_OGS.abs().sum(-1) / counts


def trits(groups_OGS: Tensor, means_OG: Tensor) -> Tensor:
    """Return the code of every weight, (O, G, S) int8: its sign, or 0 if it is below half the mean."""
    means = means_OG[..., None]
    return (groups_OGS / torch.where(means == 0, 1.0, means)).round().clamp(-1, 1).to(torch.int8)


def fitted_scales(groups_OGS: Tensor, codes_OGS: Tensor) -> Tensor:
    """Return the scale of each group that goes best with its codes, (O, G): the mean of |w| where the code is
    not zero."""
    used_OG = codes_OGS.abs().sum(-1)
    return (groups_OGS * codes_OGS).sum(-1) / used_OG.clamp(min=1)


def untied(packed: Ternary) -> Tensor:
    """Return weights, (O, I), that are rounded to this very matrix with the scale ``absmean``: those of its
    values that are not zero moved out until all together have the mean that they had alone."""
    values = packed.dequantise()
    groups_OGS = in_groups(values.double(), packed.group_size)
    used = (groups_OGS != 0).sum(-1)
    means_OG = mean_magnitudes(groups_OGS, packed.columns)
    scales_OG = groups_OGS.abs().sum(-1) / used.clamp(min=1)
    factors = scales_OG / torch.where(means_OG == 0, 1.0, means_OG)
    moved: Tensor = (groups_OGS * factors[..., None]).flatten(1)[:, : packed.columns]
    return moved.to(values.dtype)


class TernaryWeights(Quantize):
    """Every weight -1, 0 or 1 times the scale of its group, at 1.6 bits a weight.

    Source: BitNet b1.58, Ma et al. 2024, arXiv:2402.17764, which trains models so from the start. Rounding a
    trained one loses much of what it knows, and healing with ``straight_through`` brings most of that back:
    the perplexity of the reference model went from 4.65 to 9.06, and to 5.17 with 100 steps, 4.83 with 500.
    The fitted scale is that of Li et al. 2016, arXiv:1605.04711.
    """

    summary: ClassVar[str] = "weights of -1, 0 and 1 times a scale, five to a byte (BitNet b1.58)"
    paper: ClassVar[str] = "BitNet b1.58, Ma et al. 2024, arXiv:2402.17764"
    knob_type: ClassVar[type[Knobs]] = TernaryKnobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        assert isinstance(knobs, TernaryKnobs)
        return TernaryQuantizer(Trits(knobs.group_size), knobs.scale)
