"""Matrices held in few bits. Needs torch alone: exported models carry the files of this package.

Letters: R rows, C columns, G groups of a row, U bytes of a row's codes.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

UNITS = {2: (4, 1), 3: (8, 3), 4: (2, 1), 8: (1, 1)}
"""Bits of a code -> how many codes are packed together, and into how many bytes."""


class Packed(nn.Module):
    """A matrix of shape (rows, columns) in fewer bits than a number has. It holds buffers only.

    Whatever casts a model to another precision must leave it alone, so no buffer is of a floating
    type: scales are float16 numbers, kept as the integers of the same 16 bits.
    """

    form: ClassVar[str]
    """Its name in a configuration; see `hpo.compress.layers.forms`."""
    rows: int
    columns: int

    @property
    def packed_weights(self) -> int:
        """How many weights the bytes stand for."""
        return self.rows * self.columns

    @property
    def kernel(self) -> str:
        """How it is multiplied, in words that stand beside every latency."""
        return "unpacked in each forward"

    def dequantise(self) -> Tensor:
        """Return the matrix, (R, C) float32."""
        raise NotImplementedError

    def multiply(self, x: Tensor) -> Tensor:
        """Return ``x W'`` for x of shape (..., C), in its precision; without gradients."""
        return functional.linear(x, self.dequantise().to(x.dtype))

    def size(self) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty one."""
        raise NotImplementedError

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Packed":
        """Return one of the given size, its values not set."""
        raise NotImplementedError


class Rounded(Packed):
    """Codes on an evenly spaced grid: ``scale * (code - 2^(bits - 1))``, or ``scale * code + offset``.

    codes: (R, U) uint8; scales and, where there are any, offsets: (R, G) int16 that hold float16 bits.
    """

    form = "rounded"
    codes: Tensor
    scales: Tensor
    offsets: Tensor | None

    def __init__(
        self,
        codes_RU: Tensor,
        scales_RG: Tensor,
        offsets_RG: Tensor | None,
        *,
        bits: int,
        group_size: int,
        columns: int,
    ) -> None:
        super().__init__()
        self.rows, self.columns = codes_RU.shape[0], columns
        self.bits, self.group_size = bits, group_size
        self.register_buffer("codes", codes_RU)
        self.register_buffer("scales", scales_RG)
        self.register_buffer("offsets", offsets_RG)

    def dequantise(self) -> Tensor:
        group = self.group_size or self.columns
        codes_RC = unpack(self.codes, self.bits, self.columns).float()
        padded = functional.pad(codes_RC, (0, self.scales.shape[1] * group - self.columns))
        codes = padded.reshape(self.rows, -1, group)
        scales = self.scales.view(torch.float16).float()[..., None]
        if self.offsets is None:
            values = scales * (codes - 2 ** (self.bits - 1))
        else:
            values = scales * codes + self.offsets.view(torch.float16).float()[..., None]
        found: Tensor = values.reshape(self.rows, -1)[:, : self.columns]
        return found

    def size(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "rows": self.rows,
            "columns": self.columns,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.offsets is None,
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Rounded":
        rows, columns, bits, group = size["rows"], size["columns"], size["bits"], size["group_size"]
        a_unit, its_bytes = UNITS[bits]
        codes = torch.zeros(rows, -(-columns // a_unit) * its_bytes, dtype=torch.uint8)
        scales = torch.zeros(rows, -(-columns // (group or columns)), dtype=torch.int16)
        offsets = None if size["symmetric"] else torch.zeros_like(scales)
        return cls(codes, scales, offsets, bits=bits, group_size=group, columns=columns)

    def extra_repr(self) -> str:
        group = f"groups of {self.group_size}" if self.group_size else "whole rows"
        return f"{self.rows} x {self.columns}, {self.bits} bits, {group}"


def pack(codes_RC: Tensor, bits: int) -> Tensor:
    """Return codes below ``2^bits`` packed without gaps, (R, U) uint8; rows begin at whole units.

    Codes of a unit stand in it from the lowest bits up: two codes of 4 bits make ``first + 16 * second``,
    eight of 3 bits make three bytes, the lowest first.
    """
    a_unit, its_bytes = UNITS[bits]
    rows, columns = codes_RC.shape
    units = functional.pad(codes_RC.int(), (0, -columns % a_unit)).reshape(rows, -1, a_unit)
    words = (units << _steps(a_unit, bits, codes_RC.device)).sum(-1, dtype=torch.int32)[..., None]
    packed = (words >> _steps(its_bytes, 8, codes_RC.device)) & 255
    return packed.reshape(rows, -1).to(torch.uint8)


def unpack(codes_RU: Tensor, bits: int, columns: int) -> Tensor:
    """Return the codes that `pack` packed, (R, C) uint8."""
    a_unit, its_bytes = UNITS[bits]
    rows = codes_RU.shape[0]
    units = codes_RU.int().reshape(rows, -1, its_bytes)
    words = (units << _steps(its_bytes, 8, codes_RU.device)).sum(-1, dtype=torch.int32)[..., None]
    codes = (words >> _steps(a_unit, bits, codes_RU.device)) & (2**bits - 1)
    found: Tensor = codes.reshape(rows, -1)[:, :columns].to(torch.uint8)
    return found


def _steps(count: int, width: int, device: torch.device) -> Tensor:
    return torch.arange(0, count * width, width, dtype=torch.int32, device=device)
