"""Linear layers whose matrices are held in few bits, with or without low-rank factors beside them.

Letters: O output features, I input features, R rank, B everything before the last dimension of x.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.compressed import CompressedLinear
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.packed import Packed


class CorrectedLinear(CompressedLinear):
    """``y = Q x + left (right x) + bias``: a matrix in few bits and factors of what that loses, or none.

    Factors are parameters, left (O, R) and right (R, I), or in few bits too, left transposed as (R, O).
    Q is dequantised in every forward, and once more in a backward: it is never kept.
    """

    kind = "corrected"
    left: nn.Parameter | Packed | None
    right: nn.Parameter | Packed | None

    def __init__(
        self,
        backbone_OI: Packed,
        left: Tensor | Packed | None,
        right: Tensor | Packed | None,
        bias_O: Tensor | None,
    ) -> None:
        super().__init__()
        self.backbone = backbone_OI
        self.left, self.right = _held(left), _held(right)
        self.bias = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)

    @property
    def in_features(self) -> int:
        return self.backbone.columns

    @property
    def out_features(self) -> int:
        return self.backbone.rows

    @property
    def rank(self) -> int:
        if self.right is None:
            return 0
        return self.right.rows if isinstance(self.right, Packed) else self.right.shape[0]

    def forward(self, x_BI: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            y_BO: Tensor = _ProductWithPacked.apply(x_BI, self.backbone)
        else:
            y_BO = self.backbone.multiply(x_BI)
        if self.left is not None and self.right is not None:
            low = functional.linear(x_BI, _right(self.right, x_BI.dtype))
            y_BO = y_BO + functional.linear(low, _left(self.left, x_BI.dtype))
        return y_BO if self.bias is None else y_BO + self.bias

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I), float32."""
        whole = self.backbone.dequantise()
        if self.left is None or self.right is None:
            return whole
        return whole + _left(self.left, whole.dtype) @ _right(self.right, whole.dtype)

    def factors(self) -> list[nn.Parameter]:
        return [part for part in (self.left, self.right) if isinstance(part, nn.Parameter)]

    def size(self) -> dict[str, Any]:
        packed = {
            name: part.size()
            for name, part in (("left", self.left), ("right", self.right))
            if isinstance(part, Packed)
        }
        return {**self.features(), "rank": self.rank, "backbone": self.backbone.size(), **packed}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "CorrectedLinear":
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        left: Tensor | Packed | None = None
        right: Tensor | Packed | None = None
        if "left" in size:
            left, right = empty_packed(size["left"]), empty_packed(size["right"])
        elif size["rank"]:
            left = torch.empty(size["out_features"], size["rank"])
            right = torch.empty(size["rank"], size["in_features"])
        return cls(empty_packed(size["backbone"]), left, right, bias)

    def extra_repr(self) -> str:
        return f"in={self.in_features}, out={self.out_features}, rank={self.rank}"


class PackedLowRankLinear(CompressedLinear):
    """``y = left (right x) + bias``, both factors in few bits: left transposed, (R, O), and right, (R, I)."""

    kind = "packed_low_rank"

    def __init__(self, left_RO: Packed, right_RI: Packed, bias_O: Tensor | None) -> None:
        super().__init__()
        self.left = left_RO
        self.right = right_RI
        self.bias = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)

    @property
    def in_features(self) -> int:
        return self.right.columns

    @property
    def out_features(self) -> int:
        return self.left.columns

    def forward(self, x_BI: Tensor) -> Tensor:
        low = functional.linear(x_BI, _right(self.right, x_BI.dtype))
        return functional.linear(low, _left(self.left, x_BI.dtype), self.bias)

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I), float32."""
        return self.left.dequantise().T @ self.right.dequantise()

    def size(self) -> dict[str, Any]:
        return {**self.features(), "left": self.left.size(), "right": self.right.size()}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "PackedLowRankLinear":
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        return cls(empty_packed(size["left"]), empty_packed(size["right"]), bias)

    def extra_repr(self) -> str:
        return f"in={self.in_features}, out={self.out_features}, rank={self.right.rows}"


class _ProductWithPacked(torch.autograd.Function):
    """``x W'`` for a frozen W in few bits. Autograd would keep the dequantised W of every layer for the
    backward, which is the dense model that quantization did away with; this makes it again."""

    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, weight: Packed) -> Tensor:
        ctx.weight = weight
        return functional.linear(x_BI, weight.dequantise().to(x_BI.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient_BO,) = gradients
        return gradient_BO @ ctx.weight.dequantise().to(gradient_BO.dtype), None


def _held(part: Tensor | Packed | None) -> nn.Parameter | Packed | None:
    return nn.Parameter(part, requires_grad=False) if isinstance(part, Tensor) else part


def _left(part: nn.Parameter | Packed, dtype: torch.dtype) -> Tensor:
    """Return (O, R)."""
    return part.dequantise().T.to(dtype) if isinstance(part, Packed) else part.to(dtype)


def _right(part: nn.Parameter | Packed, dtype: torch.dtype) -> Tensor:
    """Return (R, I)."""
    return part.dequantise().to(dtype) if isinstance(part, Packed) else part.to(dtype)
