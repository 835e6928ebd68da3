"""Linear layers with weights that are zero and stay so. Needs torch alone: exported models carry the files of
this package.

None is faster than the dense layer it replaces: a forward multiplies by the whole matrix, zeros and all.
Letters: O output features, I input features, R rows, C columns, K rank, N weights that stay.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.compressed import CompressedLinear
from hpo.compress.layers.narrow import NarrowLinear
from hpo.compress.layers.places import Places, empty_places


class SparseMatrix(nn.Module):
    """The weights of a matrix that stay, in row order, and where they stand; the others are zero."""

    def __init__(self, values_N: Tensor, places: Places) -> None:
        super().__init__()
        self.values = nn.Parameter(values_N, requires_grad=False)
        self.places = places

    @property
    def shape(self) -> tuple[int, int]:
        return self.places.rows, self.places.columns

    def whole(self) -> Tensor:
        """Return the matrix, (R, C)."""
        return self.places.spread(self.values)

    def factors(self) -> list[nn.Parameter]:
        return [self.values]

    def size(self) -> dict[str, Any]:
        return self.places.size()


class MaskedMatrix(nn.Module):
    """A matrix held whole, zeros and all. Nothing of it is trained as it is: that would fill the zeros."""

    def __init__(self, weight_RC: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_RC, requires_grad=False)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return rows, columns

    def whole(self) -> Tensor:
        """Return the matrix, (R, C)."""
        return self.weight

    def factors(self) -> list[nn.Parameter]:
        return []

    def size(self) -> dict[str, Any]:
        return {"store": "dense", "rows": self.shape[0], "columns": self.shape[1]}


def empty_matrix(size: Mapping[str, Any]) -> SparseMatrix | MaskedMatrix:
    """Return a matrix of the store and size given, its values not set."""
    if size["store"] == "dense":
        return MaskedMatrix(torch.empty(size["rows"], size["columns"]))
    places = empty_places(size)
    return SparseMatrix(torch.empty(places.count), places)


class MaskedLinear(NarrowLinear):
    """A linear layer held whole, zeros and all; also one with fewer outputs or inputs, see `NarrowLinear`."""

    kind = "masked"

    def factors(self) -> list[nn.Parameter]:
        """None: training the weight as it is would fill its zeros."""
        return []

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I)."""
        return self.weight

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "MaskedLinear":
        plain = NarrowLinear.empty(size, old)
        return cls(plain.weight.detach(), None if plain.bias is None else plain.bias.detach(), plain.parts)


class SparseLinear(CompressedLinear):
    """``y = W x + bias``, W held as its weights that stay; also with fewer outputs or inputs."""

    kind = "sparse"

    def __init__(self, matrix_OI: SparseMatrix, bias_O: Tensor | None, parts: int = 1) -> None:
        """`parts`: as of `NarrowLinear`."""
        super().__init__()
        self.matrix = matrix_OI
        self.bias = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)
        self.parts = parts

    @property
    def in_features(self) -> int:
        return self.matrix.shape[1]

    @property
    def out_features(self) -> int:
        return self.matrix.shape[0]

    def forward(self, x_BI: Tensor) -> Tensor:
        return functional.linear(x_BI, self.matrix.whole(), self.bias)

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I)."""
        return self.matrix.whole()

    def factors(self) -> list[nn.Parameter]:
        return self.matrix.factors()

    def size(self) -> dict[str, Any]:
        return {**self.features(), "matrix": self.matrix.size(), "parts": self.parts}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "SparseLinear":
        places = empty_places(size["matrix"])
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        return cls(SparseMatrix(torch.empty(places.count), places), bias, size["parts"])

    def extra_repr(self) -> str:
        return f"in={self.in_features}, out={self.out_features}"


class SparseLowRankLinear(CompressedLinear):
    """``y = left (right x) + bias``, left (O, K) and right (K, I) with zeros, held whole or without them."""

    kind = "sparse_low_rank"

    def __init__(
        self, left: SparseMatrix | MaskedMatrix, right: SparseMatrix | MaskedMatrix, bias_O: Tensor | None
    ) -> None:
        super().__init__()
        self.left = left
        self.right = right
        self.bias = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)

    @property
    def in_features(self) -> int:
        return self.right.shape[1]

    @property
    def out_features(self) -> int:
        return self.left.shape[0]

    def forward(self, x_BI: Tensor) -> Tensor:
        return functional.linear(functional.linear(x_BI, self.right.whole()), self.left.whole(), self.bias)

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I)."""
        return self.left.whole() @ self.right.whole()

    def factors(self) -> list[nn.Parameter]:
        return [*self.left.factors(), *self.right.factors()]

    def size(self) -> dict[str, Any]:
        return {**self.features(), "left": self.left.size(), "right": self.right.size()}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "SparseLowRankLinear":
        bias = torch.empty(size["out_features"]) if size["bias"] else None
        return cls(empty_matrix(size["left"]), empty_matrix(size["right"]), bias)

    def extra_repr(self) -> str:
        return f"in={self.in_features}, out={self.out_features}, rank={self.right.shape[0]}"
