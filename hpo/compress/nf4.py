"""NF4: four bits whose values are quantiles of a normal distribution.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from hpo.compress.layers.codebook import NF4_BITS, NF4_LEVELS, NormalLevels, doubled
from hpo.compress.layers.packed import pack
from hpo.compress.normal_float import BLOCK, NormalFloat
from hpo.compress.quantize import GroupKnobs, Quantize
from hpo.compress.quantize_groups import in_groups
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import check, half

_LAST = 127
"""The largest code of a scale in 8 bits; the smallest is its opposite."""


class Nf4Knobs(GroupKnobs):
    """The groups, and how their scales are held."""

    double: bool = False
    """Whether scales are in 8 bits, with a float32 for every 256 of them: 8.1 bits a group for 16."""


@dataclass(frozen=True)
class Nf4Quantizer:
    """Scales each group so that its largest weight is 1 or -1 and takes the nearest of the 16 values."""

    form: NormalFloat
    key: ClassVar[str] = ""
    needs_gram: ClassVar[bool] = False

    @property
    def format(self) -> NormalFloat:
        return self.form

    @property
    def noise(self) -> float:
        """Measured on Gaussian weights in groups of 64."""
        return 0.09

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> NormalLevels:
        """Return the weight on its levels; the Gram matrix is not used.

        Raises:
            NonFinite: the weight holds NaN or infinity.
            Unsupported: a weight is beyond float16, in which scales are kept.
        """
        check(weight_OI)
        groups_OGS = in_groups(weight_OI.double(), self.form.group_size)
        largest_OG = groups_OGS.abs().amax(-1)
        held: tuple[Tensor, Tensor | None, Tensor | None]
        if self.form.double:
            scales, steps, mean = in_steps(largest_OG)
            values_OG = doubled(scales, steps, mean)
            held = scales, steps.view(torch.int32), mean.view(torch.int32)
        else:
            values_OG = half(largest_OG)
            held = values_OG.view(torch.int16), None, None
        columns = weight_OI.shape[1]
        codes_OI = level_codes(groups_OGS, values_OG).flatten(1)[:, :columns]
        return NormalLevels(pack(codes_OI, NF4_BITS), *held, group_size=self.form.group_size, columns=columns)


def level_codes(groups_OGS: Tensor, scales_OG: Tensor) -> Tensor:
    """Return which level times its group's scale each weight is nearest to, (O, G, S) uint8."""
    scales = scales_OG.double()[..., None]
    levels = torch.tensor(NF4_LEVELS, dtype=torch.float64, device=groups_OGS.device)
    borders = (levels[1:] + levels[:-1]) / 2
    shares = groups_OGS / torch.where(scales == 0, 1.0, scales)
    return torch.bucketize(shares.contiguous(), borders).to(torch.uint8)


def in_steps(scales_OG: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scales in 8 bits, (O, G) int8: how many steps each is from the mean. With the step of every 256
    scales, row after row, and the mean, (1,), both float32."""
    mean = scales_OG.mean().float().reshape(1)
    away = (scales_OG - mean).flatten()
    blocks = functional.pad(away, (0, -len(away) % BLOCK)).reshape(-1, BLOCK)
    steps = (blocks.abs().amax(1) / _LAST).float()
    counts = (blocks / torch.where(steps == 0, 1.0, steps).double()[:, None]).round().clamp(-_LAST, _LAST)
    return counts.to(torch.int8).flatten()[: len(away)].reshape(scales_OG.shape), steps, mean


class Nf4(Quantize):
    """Four bits a weight with the values that a normal distribution would fill evenly.

    Source: QLoRA, Dettmers et al. 2023, arXiv:2305.14314; scales of scales are whole numbers of 8 bits here,
    where the paper has floating ones.
    """

    summary: ClassVar[str] = "four bits whose values are quantiles of a normal distribution (NF4)"
    paper: ClassVar[str] = "QLoRA, Dettmers et al. 2023, arXiv:2305.14314"
    knob_type: ClassVar[type[Knobs]] = Nf4Knobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        assert isinstance(knobs, Nf4Knobs)
        return Nf4Quantizer(NormalFloat(knobs.group_size, knobs.double))
