"""Plans of layers that become narrower, with exact costs. Needs no torch.

A block is cut along three sizes: the dimensions of its heads for queries and keys, those for values, and the
units of its MLP. A layer's rows and columns grow evenly with them, so what a layer costs follows from a
few numbers, its grain, whatever its class. Letters: U units of a part that is cut.
"""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Literal, Self

import numpy as np

from hpo.compress.layer_plan import Costs, Dense, Shapes
from hpo.compress.profile import Array

Part = Literal["query_key", "value", "mlp"]
Order = Literal["leverage", "elimination"]
"""Of the units of an MLP, see `hpo.compress.modegpt_math`."""

PARTS: tuple[Part, ...] = ("query_key", "value", "mlp")

_INDEX_BYTES = 4
"""Of the number of a rotary pair, int32."""


@dataclass(frozen=True)
class Grain:
    """What a unit of each part is to one layer."""

    query_key_rows: int = 0
    value_rows: int = 0
    mlp_rows: int = 0
    value_columns: int = 0
    mlp_columns: int = 0
    query_key_scores: int = 0
    """Multiply-accumulates of the attention scores, a pair of tokens, that go with this layer."""
    indices: int = 0
    """Numbers of rotary pairs that are kept with this layer."""
    has_bias: int = 0

    def to_array(self) -> Array:
        return np.array([getattr(self, one.name) for one in fields(self)], dtype=float)

    @classmethod
    def from_array(cls, values: Array) -> Self:
        return cls(*(int(value) for value in values))

    @property
    def rows(self) -> tuple[int, int, int]:
        """By part."""
        return self.query_key_rows, self.value_rows, self.mlp_rows

    @property
    def columns(self) -> tuple[int, int, int]:
        return 0, self.value_columns, self.mlp_columns

    def weights(self, part: int, out_features: int, in_features: int) -> int:
        """Return the weights of a layer that a unit of a part stands for."""
        return self.rows[part] * in_features + self.columns[part] * out_features


@dataclass(frozen=True)
class Cut:
    """The sizes of one block, in units, and the dense ones: queries and keys, values, MLP; 0 for no part."""

    kept: tuple[int, int, int]
    dense: tuple[int, int, int]

    @property
    def lost(self) -> tuple[int, ...]:
        return tuple(dense - kept for dense, kept in zip(self.dense, self.kept, strict=True))


@dataclass(frozen=True)
class Narrow:
    """A layer with fewer rows, columns or both; its neighbours have as many fewer."""

    out_features: int
    in_features: int
    grain: Grain
    cut: Cut
    context: int
    """Tokens of the prefill that costs are stated for; attention is quadratic in it."""
    order: Order
    """How the units of the MLP were put in order."""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "narrow"

    def __post_init__(self) -> None:
        weights = self.rows * self.columns
        held = weights - self.grain.has_bias * (self.out_features - self.rows)
        size = self._size()
        key = f"n{','.join(map(str, self.cut.kept))}{self.order}"
        packed = _INDEX_BYTES * self.grain.indices * self.cut.kept[0] * self._picks_pairs
        costs = Costs(key, size, held, held, weights, -self._spared_scores(), packed)
        object.__setattr__(self, "costs", costs)

    @property
    def rows(self) -> int:
        return self.out_features - _dot(self.grain.rows, self.cut.lost)

    @property
    def columns(self) -> int:
        return self.in_features - _dot(self.grain.columns, self.cut.lost)

    @property
    def matrices(self) -> Shapes:
        return ((self.rows, self.columns),)

    @property
    def _picks_pairs(self) -> bool:
        return self.cut.lost[0] > 0

    def _spared_scores(self) -> int:
        """Scores are a product of queries and keys and one with values, whose width is the output layer's."""
        query_key, value, _ = self.cut.lost
        width = self.grain.query_key_scores * query_key + self.grain.value_columns * value
        return self.context**2 * width

    def _size(self) -> str:
        return f"{self.rows} x {self.columns} of {self.out_features} x {self.in_features}"


@dataclass(frozen=True)
class Unknown(Dense):
    """A layer left as it is because nobody knows how to cut the module it is part of."""

    owner: str = ""
    """Class of that module."""

    def __post_init__(self) -> None:
        weights = self.out_features * self.in_features
        said = f"as it is: {self.owner} cannot be cut"
        object.__setattr__(self, "costs", Costs("d", said, weights, weights, weights))


def _dot(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    return sum(a * b for a, b in zip(left, right, strict=True))


@lru_cache(maxsize=1 << 16)
def narrow(
    out_features: int, in_features: int, grain: Grain, cut: Cut, context: int, order: Order
) -> Dense | Narrow:
    """Return the plan of a layer in a block that is cut so; dense if it stays as it is."""
    lost = cut.lost
    if _dot(grain.rows, lost) == 0 and _dot(grain.columns, lost) == 0:
        return Dense(out_features, in_features)
    return Narrow(out_features, in_features, grain, cut, context, order)
