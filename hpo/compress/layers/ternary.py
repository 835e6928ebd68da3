"""Matrices whose weights are -1, 0 or 1 times a scale. Needs torch alone: exported models carry the files of
this package.

Letters: R rows, C columns, G groups of a row, U bytes of a row's codes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hpo.compress.layers.codebook import spread_over_groups
from hpo.compress.layers.packed import Packed

TRITS_A_BYTE = 5


class Ternary(Packed):
    """``scale * code``, codes -1, 0 and 1, five to a byte as a number of base 3, the first the lowest.

    codes: (R, U) uint8; scales: (R, G) int16 that hold float16 bits.
    """

    form = "ternary"
    codes: Tensor
    scales: Tensor

    def __init__(self, codes_RU: Tensor, scales_RG: Tensor, *, group_size: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns, self.group_size = len(codes_RU), columns, group_size
        self.register_buffer("codes", codes_RU)
        self.register_buffer("scales", scales_RG)

    def dequantise(self) -> Tensor:
        scales = self.scales.view(torch.float16).float()
        codes = unpack_trits(self.codes, self.columns)
        return codes * spread_over_groups(scales, self.group_size, self.columns)

    def size(self) -> dict[str, Any]:
        return {"form": self.form, "rows": self.rows, "columns": self.columns, "group_size": self.group_size}

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Ternary":
        rows, columns, group = size["rows"], size["columns"], size["group_size"]
        codes = torch.zeros(rows, -(-columns // TRITS_A_BYTE), dtype=torch.uint8)
        scales = torch.zeros(rows, -(-columns // (group or columns)), dtype=torch.int16)
        return cls(codes, scales, group_size=group, columns=columns)

    def extra_repr(self) -> str:
        group = f"groups of {self.group_size}" if self.group_size else "whole rows"
        return f"{self.rows} x {self.columns}, ternary, {group}"


def pack_trits(codes_RC: Tensor) -> Tensor:
    """Return codes of -1, 0 and 1 packed, five to a byte, (R, U) uint8; rows begin at whole bytes."""
    digits = functional.pad(codes_RC.int() + 1, (0, -codes_RC.shape[1] % TRITS_A_BYTE))
    fives = digits.reshape(len(codes_RC), -1, TRITS_A_BYTE)
    return (fives * _powers(codes_RC.device)).sum(-1).to(torch.uint8)


def unpack_trits(codes_RU: Tensor, columns: int) -> Tensor:
    """Return the codes that `pack_trits` packed, (R, C) float32."""
    every = torch.arange(3**TRITS_A_BYTE, dtype=torch.int32, device=codes_RU.device)[:, None]
    fives = (every // _powers(codes_RU.device) % 3 - 1).float()[codes_RU.int()]
    return fives.flatten(1)[:, :columns]


def _powers(device: torch.device) -> Tensor:
    return 3 ** torch.arange(TRITS_A_BYTE, dtype=torch.int32, device=device)
