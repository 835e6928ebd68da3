"""Codes of a matrix whose columns were scaled before they were rounded. Letters: as in `packed`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpo.compress.layers.packed import Rounded


class Scaled(Rounded):
    """Codes on an evenly spaced grid, whose values are multiplied by one number a column.

    reciprocals: (C,) int16 that hold float16 bits, of what each column was multiplied with.
    """

    form = "scaled"
    reciprocals: Tensor

    def __init__(
        self,
        codes_RU: Tensor,
        scales_RG: Tensor,
        offsets_RG: Tensor | None,
        reciprocals_C: Tensor,
        *,
        bits: int,
        group_size: int,
    ) -> None:
        columns = len(reciprocals_C)
        super().__init__(codes_RU, scales_RG, offsets_RG, bits=bits, group_size=group_size, columns=columns)
        self.register_buffer("reciprocals", reciprocals_C)

    def dequantise(self) -> Tensor:
        return super().dequantise() * self.reciprocals.view(torch.float16).float()

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Scaled":
        of = Rounded.empty(size)
        reciprocals = torch.zeros(of.columns, dtype=torch.int16)
        return cls(of.codes, of.scales, of.offsets, reciprocals, bits=of.bits, group_size=of.group_size)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, columns scaled"
