"""Matrices of 8 bits that are multiplied as integers, by inputs rounded to 8 bits token by token.

Letters: R rows, C columns, N tokens.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hpo.compress.layers.packed import Packed

LARGEST = 127
"""The largest code; there is none of -128, so that codes are symmetric."""


class Int8(Packed):
    """``scale * code``, a scale a row. Inputs are rounded to a scale a token, and where integers can be
    multiplied, the product is exact in 32-bit integers; where not, in float64, which gives the same sums.

    codes: (R, C) int8; scales: (R, 1) int16 that hold float16 bits.
    """

    form = "int8"
    codes: Tensor
    scales: Tensor

    def __init__(self, codes_RC: Tensor, scales_R1: Tensor) -> None:
        super().__init__()
        kernel_fault("cpu")  # found out here, so that a forward, which may be counted, holds no trial of it
        self.rows, self.columns = codes_RC.shape
        self.register_buffer("codes", codes_RC)
        self.register_buffer("scales", scales_R1)

    @property
    def kernel(self) -> str:
        fault = kernel_fault(self.codes.device.type)
        return f"int8 products in float64 ({fault})" if fault else "int8 products"

    def dequantise(self) -> Tensor:
        return self.codes.float() * self.scales.view(torch.float16).float()

    def multiply(self, x: Tensor) -> Tensor:
        rows_NC = x.reshape(-1, self.columns).float()
        scales_N1 = rows_NC.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / LARGEST
        codes_NC = (rows_NC / scales_N1).round().to(torch.int8)
        if kernel_fault(x.device.type):
            sums_NR = functional.linear(codes_NC.double(), self.codes.double())
        else:
            sums_NR = torch._int_mm(codes_NC, self.codes.T)
        y_NR = sums_NR.float() * scales_N1 * self.scales.view(torch.float16).float().T
        return y_NR.to(x.dtype).reshape(*x.shape[:-1], self.rows)

    def size(self) -> dict[str, Any]:
        return {"form": self.form, "rows": self.rows, "columns": self.columns}

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Int8":
        rows, columns = size["rows"], size["columns"]
        return cls(torch.zeros(rows, columns, dtype=torch.int8), torch.zeros(rows, 1, dtype=torch.int16))

    def extra_repr(self) -> str:
        return f"{self.rows} x {self.columns}, int8 with a scale a row"


@cache
def kernel_fault(device: str) -> str:
    """Return why integers are not multiplied as such on a kind of device; empty where they are."""
    if device != "cpu":
        return f"used on processors alone, not on {device}"
    try:
        ones = torch.ones((2, 16), dtype=torch.int8, device=device)
        torch._int_mm(ones, ones.T)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        return str(error).splitlines()[0]
    return ""
