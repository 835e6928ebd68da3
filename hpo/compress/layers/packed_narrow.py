"""Narrower linear layers whose matrix is held in few bits. Letters: O output features, I input features."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpo.compress.layers.corrected import CorrectedLinear
from hpo.compress.layers.forms import empty_packed
from hpo.compress.layers.narrow import NarrowLinear
from hpo.compress.layers.packed import Packed


class PackedNarrowLinear(CorrectedLinear):
    """A linear layer with fewer outputs or inputs, in few bits, with or without factors of the loss."""

    kind = "packed_narrow"

    def __init__(
        self,
        backbone_OI: Packed,
        left: Tensor | Packed | None,
        right: Tensor | Packed | None,
        bias_O: Tensor | None,
        parts: int = 1,
    ) -> None:
        """`parts`: as of `NarrowLinear`."""
        super().__init__(backbone_OI, left, right, bias_O)
        self.parts = parts

    def size(self) -> dict[str, Any]:
        return {**super().size(), "parts": self.parts}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "PackedNarrowLinear":
        plain = CorrectedLinear.empty(size, old)
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        return cls(empty_packed(size["backbone"]), plain.left, plain.right, bias, size["parts"])

    def as_dense(self, old: nn.Module) -> nn.Module:
        """As that of `NarrowLinear`."""
        weight_OI = self.dense_weight().detach().to(old.get_parameter("weight").dtype)
        bias = None if self.bias is None else self.bias.detach()
        return NarrowLinear(weight_OI, bias, self.parts).as_dense(old)
