"""A linear layer with a low-rank adapter beside it that stays. Letters: O output features, I input
features, K rank of the adapter, B everything before the last dimension of x."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.compressed import CompressedLinear


class AdaptedLinear(CompressedLinear):
    """``y = base(x) + scale * up (down x)``, up (O, K), down (K, I): LoRA that is not merged.

    Source: Hu et al. 2021, arXiv:2106.09685; over a base in few bits QLoRA, arXiv:2305.14314.
    """

    kind = "adapted"

    def __init__(self, base: nn.Module, up_OK: Tensor, down_KI: Tensor, scale: float) -> None:
        super().__init__()
        self.base = base
        self.up = nn.Parameter(up_OK, requires_grad=False)
        self.down = nn.Parameter(down_KI, requires_grad=False)
        self.scale = scale
        self.bias = None  # the base adds its own
        self.parts = getattr(base, "parts", 1)

    @property
    def in_features(self) -> int:
        return self.down.shape[1]

    @property
    def out_features(self) -> int:
        return self.up.shape[0]

    def forward(self, x_BI: Tensor) -> Tensor:
        y_BO: Tensor = self.base(x_BI)
        return y_BO + self.scale * functional.linear(functional.linear(x_BI, self.down), self.up)

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I)."""
        base: Any = self.base
        weight: Tensor = base.dense_weight()
        return weight + self.scale * self.up @ self.down

    def dense_bias(self) -> Tensor | None:
        bias = getattr(self.base, "bias", None)
        return bias if isinstance(bias, Tensor) else None

    def factors(self) -> list[nn.Parameter]:
        """The adapter; the base names its own."""
        return [self.up, self.down]

    def size(self) -> dict[str, Any]:
        return {
            "out_features": self.out_features,
            "in_features": self.in_features,
            "rank": self.down.shape[0],
            "scale": self.scale,
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "AdaptedLinear":
        """The base is `old` at first; a compressed one has an entry of its own and replaces it."""
        up = torch.empty(size["out_features"], size["rank"])
        return cls(old, up, torch.empty(size["rank"], size["in_features"]), size["scale"])

    def extra_repr(self) -> str:
        return f"in={self.in_features}, out={self.out_features}, rank={self.down.shape[0]}"
