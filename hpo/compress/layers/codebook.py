"""Matrices whose codes name values of one table, that of a normal distribution. Needs torch alone: exported
models carry the files of this package.

Letters: R rows, C columns, G groups of a row, U bytes of a row's codes.
"""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from hpo.compress.layers.packed import UNITS, Packed, unpack

NF4_BITS = 4
SCALES_A_BLOCK = 256
"""Scales that share a scale of theirs, where they are in few bits too."""


def normal_levels() -> tuple[float, ...]:
    """Return the 16 values of NF4, rising from -1 to 1, with a zero among them.

    Eight quantiles of the normal distribution from 1/2 down to the tail, half-way between 1/32 and 1/30, and
    seven up to it, of which the outermost is 1 and -1 after scaling; as in QLoRA, Dettmers et al. 2023,
    arXiv:2305.14314, appendix E.
    """
    tail, normal = (1 / 32 + 1 / 30) / 2, NormalDist()
    positive = [-normal.inv_cdf(tail + (0.5 - tail) * step / 8) for step in range(8)]
    negative = [normal.inv_cdf(tail + (0.5 - tail) * step / 7) for step in range(7)]
    return tuple(level / positive[0] for level in (*negative, 0.0, *reversed(positive)))


NF4_LEVELS = normal_levels()


class NormalLevels(Packed):
    """NF4: ``scale * level[code]``.

    codes: (R, U) uint8. Scales are float16 bits, (R, G) int16; or in few bits as well, and then (R, G) int8
    that count steps from their mean: mean, (1,), and steps, one for every 256 scales, are int32 that hold
    float32 bits.
    """

    form = "nf4"
    codes: Tensor
    scales: Tensor
    steps: Tensor | None
    mean: Tensor | None

    def __init__(
        self,
        codes_RU: Tensor,
        scales_RG: Tensor,
        steps: Tensor | None,
        mean: Tensor | None,
        *,
        group_size: int,
        columns: int,
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.group_size = len(codes_RU), columns, group_size
        self.register_buffer("codes", codes_RU)
        self.register_buffer("scales", scales_RG)
        self.register_buffer("steps", steps)
        self.register_buffer("mean", mean)

    def scale_values(self) -> Tensor:
        """Return the scales, (R, G) float32."""
        if self.steps is None or self.mean is None:
            return self.scales.view(torch.float16).float()
        return doubled(self.scales, self.steps.view(torch.float32), self.mean.view(torch.float32))

    def dequantise(self) -> Tensor:
        levels = torch.tensor(NF4_LEVELS, device=self.codes.device)
        values = levels[unpack(self.codes, NF4_BITS, self.columns).int()]
        return values * spread_over_groups(self.scale_values(), self.group_size, self.columns)

    def size(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "rows": self.rows,
            "columns": self.columns,
            "group_size": self.group_size,
            "double": self.steps is not None,
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "NormalLevels":
        rows, columns, group = size["rows"], size["columns"], size["group_size"]
        a_unit, its_bytes = UNITS[NF4_BITS]
        codes = torch.zeros(rows, -(-columns // a_unit) * its_bytes, dtype=torch.uint8)
        groups = -(-columns // (group or columns))
        if not size["double"]:
            scales = torch.zeros(rows, groups, dtype=torch.int16)
            return cls(codes, scales, None, None, group_size=group, columns=columns)
        scales = torch.zeros(rows, groups, dtype=torch.int8)
        steps = torch.zeros(-(-rows * groups // SCALES_A_BLOCK), dtype=torch.int32)
        mean = torch.zeros(1, dtype=torch.int32)
        return cls(codes, scales, steps, mean, group_size=group, columns=columns)

    def extra_repr(self) -> str:
        group = f"groups of {self.group_size}" if self.group_size else "whole rows"
        scales = "" if self.steps is None else ", scales in 8 bits"
        return f"{self.rows} x {self.columns}, NF4, {group}{scales}"


def doubled(codes_RG: Tensor, steps: Tensor, mean: Tensor) -> Tensor:
    """Return scales, none below zero, of codes that count steps from their mean, a step for 256 codes."""
    each = steps.repeat_interleave(SCALES_A_BLOCK)[: codes_RG.numel()]
    return (mean + each.reshape(codes_RG.shape) * codes_RG).clamp(min=0)


def spread_over_groups(scales_RG: Tensor, group_size: int, columns: int) -> Tensor:
    """Return the scale of every column, (R, C); group size 0 stands for whole rows."""
    if not group_size or group_size >= columns:
        return scales_RG.expand(-1, columns)
    return scales_RG.repeat_interleave(group_size, 1)[:, :columns]
