"""A linear layer in two thin matrices. Letters: O output features, I input features, R rank."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.compressed import CompressedLinear


class LowRankLinear(CompressedLinear):
    """``y = left (right x) + bias``: a linear layer of rank R in two thin matrices."""

    kind = "low_rank"

    def __init__(self, left_OR: Tensor, right_RI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self.left = nn.Parameter(left_OR, requires_grad=False)
        self.right = nn.Parameter(right_RI, requires_grad=False)
        self.bias = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)

    @property
    def in_features(self) -> int:
        return self.right.shape[1]

    @property
    def out_features(self) -> int:
        return self.left.shape[0]

    def forward(self, x_BI: Tensor) -> Tensor:
        return functional.linear(functional.linear(x_BI, self.right), self.left, self.bias)

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I)."""
        return self.left @ self.right

    def factors(self) -> list[nn.Parameter]:
        return [self.left, self.right]

    def size(self) -> dict[str, Any]:
        return {**self.features(), "rank": self.right.shape[0]}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "LowRankLinear":
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        left = torch.empty(size["out_features"], size["rank"])
        return cls(left, torch.empty(size["rank"], size["in_features"]), bias)

    def extra_repr(self) -> str:
        return f"in={self.in_features}, out={self.out_features}, rank={self.right.shape[0]}"
