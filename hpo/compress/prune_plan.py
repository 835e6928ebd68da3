"""Plans of a model of which whole heads, MLP units or blocks are removed, with exact costs. Needs no torch.

An attention and an MLP lose whole items: a key-value head with all query heads that share it (a head group),
or a unit. A layer's rows and columns grow evenly with their number, so what a layer costs follows from a few
numbers, its grain, whatever its class.
"""

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import ClassVar, Literal, Self

import numpy as np

from hpo.compress.layer_plan import Costs, Dense, Shapes
from hpo.compress.profile import Array

Part = Literal["heads", "units"]
"""What an item is: a head group of an attention, or a unit of an MLP."""

PARTS: tuple[Part, ...] = ("heads", "units")


@dataclass(frozen=True)
class Grain:
    """What one head group and one unit are to a layer."""

    head_rows: int = 0
    unit_rows: int = 0
    head_columns: int = 0
    unit_columns: int = 0
    head_scores: int = 0
    """Multiply-accumulates of the attention scores, a pair of tokens; of the layer that reads the heads."""
    queries: int = 0
    """Query heads of a group; of the layer that reads the heads."""
    has_bias: int = 0

    def to_array(self) -> Array:
        return np.array([getattr(self, one.name) for one in fields(self)], dtype=float)

    @classmethod
    def from_array(cls, values: Array) -> Self:
        return cls(*(int(value) for value in values))

    @property
    def rows(self) -> tuple[int, int]:
        """By part."""
        return self.head_rows, self.unit_rows

    @property
    def columns(self) -> tuple[int, int]:
        return self.head_columns, self.unit_columns

    def weights(self, part: int, out_features: int, in_features: int) -> int:
        """Return the weights and biases of a layer that an item of a part stands for."""
        rows = self.rows[part] * (in_features + self.has_bias)
        return rows + self.columns[part] * out_features


@dataclass(frozen=True)
class Cut:
    """How many items of each part a block keeps, and how many it had; 0 for no part."""

    kept: tuple[int, int]
    dense: tuple[int, int]

    @property
    def lost(self) -> tuple[int, int]:
        return self.dense[0] - self.kept[0], self.dense[1] - self.kept[1]


@dataclass(frozen=True)
class Trimmed:
    """A layer of which rows or columns are removed; its neighbours lose as many. Still one plain matrix."""

    out_features: int
    in_features: int
    grain: Grain
    cut: Cut
    context: int
    """Tokens of the prefill that costs are stated for; attention is quadratic in it."""
    metric: str
    """By which importance the items were put in order; the first of them are kept."""
    compensated: bool = False
    """Whether the mean of what is no longer read is added as a bias."""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "narrow"

    def __post_init__(self) -> None:
        weights = self.rows * self.columns
        held = weights - self.grain.has_bias * (self.out_features - self.rows) + self._gained
        costs = Costs(
            key=f"p{','.join(map(str, self.cut.kept))}{self.metric}{'+' if self.compensated else ''}",
            size=f"{self.rows} x {self.columns} of {self.out_features} x {self.in_features}",
            parameters=held,
            resident=held,
            macs_per_token=weights,
            macs_per_call=-(self.context**2) * self.grain.head_scores * self.cut.lost[0],
        )
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
    def _gained(self) -> int:
        """Biases that come where there were none."""
        is_given = self.compensated and self.columns < self.in_features
        return self.out_features if is_given and not self.grain.has_bias else 0


@dataclass(frozen=True)
class Removed:
    """A layer whose whole block is removed."""

    out_features: int
    in_features: int
    costs: ClassVar[Costs] = Costs("x", "its block is removed", 0, 0, 0)
    kind = "removed"
    matrices: ClassVar[Shapes] = ()


@dataclass(frozen=True)
class RemovedBlock:
    """What a block holds and computes beside its linear layers, once the block is removed: nothing."""

    block: int
    """Its number."""
    parameters: int
    """Norms, biases, and whatever else is no weight of a linear layer."""
    bytes: int
    """Of these, and of the block's buffers."""
    macs_per_token: int
    scores: int
    """Multiply-accumulates of its attention scores, a pair of tokens."""
    context: int
    weight_bits: int
    """Of the linear layers, in which a plan counts all weights."""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "removed"

    def __post_init__(self) -> None:
        costs = Costs(
            key=f"x{self.block}",
            size="removed",
            parameters=0,
            resident=0,
            macs_per_token=0,
            macs_per_call=-(self.context**2) * self.scores,
            packed_bytes=self.parameters * self.weight_bits // 8 - self.bytes,
        )
        object.__setattr__(self, "costs", costs)

    @property
    def dense_parameters(self) -> int:
        return self.parameters

    @property
    def dense_macs_per_token(self) -> int:
        return self.macs_per_token


def _dot(left: tuple[int, int], right: tuple[int, int]) -> int:
    return left[0] * right[0] + left[1] * right[1]


@lru_cache(maxsize=1 << 16)
def trimmed(
    out_features: int,
    in_features: int,
    grain: Grain,
    cut: Cut,
    context: int,
    metric: str,
    compensated: bool = False,
) -> Dense | Trimmed:
    """Return the plan of a layer in a block that is cut so; dense if it stays as it is."""
    lost = cut.lost
    if _dot(grain.rows, lost) == 0 and _dot(grain.columns, lost) == 0:
        return Dense(out_features, in_features)
    return Trimmed(out_features, in_features, grain, cut, context, metric, compensated)


@lru_cache(maxsize=1 << 10)
def removed(out_features: int, in_features: int) -> Removed:
    """Return the plan of a layer whose block is removed."""
    return Removed(out_features, in_features)
