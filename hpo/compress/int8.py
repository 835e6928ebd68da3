"""Eight bits for weights and inputs alike, multiplied as integers. Letters: O output, I input features."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hpo.compress.grid import HALF
from hpo.compress.layers.int8 import LARGEST, Int8
from hpo.compress.quantize import Quantize, QuantizeKnobs
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import TINIEST, check


@dataclass(frozen=True)
class Int8Rows:
    """A byte a weight, a float16 scale a row."""

    key: ClassVar[str] = "8int"

    def __str__(self) -> str:
        return "8 bits in whole rows, multiplied as integers"

    def weights(self, rows: int, columns: int) -> int:
        return rows * columns

    def packed_bytes(self, rows: int, columns: int) -> int:
        return rows * (columns + HALF)

    def fault(self, rows: int, columns: int) -> str:
        return ""

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        return {"form": Int8.form, "rows": rows, "columns": columns}


@dataclass(frozen=True)
class RoundToInt8:
    """Every weight to the nearest of 255 codes around zero, by the largest of its row."""

    key: ClassVar[str] = ""
    needs_gram: ClassVar[bool] = False
    noise: ClassVar[float] = 0.01
    format: ClassVar[Int8Rows] = Int8Rows()

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> Int8:
        """Return the weight in 8 bits; the Gram matrix is not used.

        Raises:
            NonFinite: the weight holds NaN or infinity.
            Unsupported: a weight is beyond float16, in which scales are kept.
        """
        check(weight_OI)
        scales_O1 = (weight_OI.double().abs().amax(-1, keepdim=True) / LARGEST).half().clamp(min=TINIEST)
        codes_OI = (weight_OI.double() / scales_O1.double()).round().clamp(-LARGEST, LARGEST)
        return Int8(codes_OI.to(torch.int8), scales_O1.view(torch.int16))


class DynamicInt8(Quantize):
    """Weights and inputs in 8 bits, multiplied as integers: the one format that makes a processor faster.

    Weights have a scale a row, inputs one a token, found as they come, so quality is measured with both
    rounded. On other devices, and where the integer product does not run, the same sums are taken in float64;
    which one ran stands beside every latency.

    Source: token-wise dynamic quantization of ZeroQuant, Yao et al. 2022, arXiv:2206.01861.
    """

    summary: ClassVar[str] = "8-bit weights times 8-bit inputs, as integers: faster on processors"
    paper: ClassVar[str] = "ZeroQuant, arXiv:2206.01861"
    knob_type: ClassVar[type[Knobs]] = QuantizeKnobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        return RoundToInt8()
