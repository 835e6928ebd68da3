"""Plans of one layer: what becomes of it, after rounding, and what that costs. Nothing is run.

The plan of a layer knows its shape, not its name, and is interned: a search previews thousands of
plans, and the hundreds of layers in each are of a few shapes.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from hpo.compress.architecture import break_even_rank
from hpo.errors import Unsupported


@dataclass(frozen=True)
class Costs:
    """What a layer's plan costs."""

    key: str
    """Short and unique among plans of one layer; part of the plan's hash."""
    size: str
    """Rank or bonds in words."""
    parameters: int
    resident: int
    """Weights held in memory, derived ones included."""
    macs_per_token: int
    macs_per_call: int = 0
    """Multiply-accumulates that a forward needs once, however many tokens it has."""
    packed_bytes: int = 0
    """Bytes of what is not held in the model's precision: packed codes, their scales, indices."""

    def macs(self, tokens: int) -> int:
        """Return the multiply-accumulates of one forward over `tokens` tokens."""
        return tokens * self.macs_per_token + self.macs_per_call


Shapes = tuple[tuple[int, int], ...]
"""Rows and columns of matrices."""


class LayerPlan(Protocol):
    """What becomes of a layer: a frozen value; each family of methods has its own."""

    def __hash__(self) -> int: ...

    @property
    def kind(self) -> str: ...

    @property
    def out_features(self) -> int: ...

    @property
    def in_features(self) -> int: ...

    @property
    def costs(self) -> Costs: ...

    @property
    def matrices(self) -> Shapes:
        """Of the matrices that hold the layer in the model's precision, as a later stage may hold them in
        another format; empty where none can be told apart, or none is left."""
        ...


@dataclass(frozen=True)
class Dense:
    """The layer as it is."""

    out_features: int
    in_features: int
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "dense"

    def __post_init__(self) -> None:
        weights = self.out_features * self.in_features
        object.__setattr__(self, "costs", Costs("d", "as it is", weights, weights, weights))

    @property
    def matrices(self) -> Shapes:
        return ((self.out_features, self.in_features),)


@dataclass(frozen=True)
class LowRank:
    """Two factors in place of W: left (out_features, rank) times right (rank, in_features).

    Raises:
        Unsupported: the rank is above break-even, where the factors would hold more than W.
    """

    out_features: int
    in_features: int
    rank: int
    basis: str = ""
    """Which factors are sliced, where a method has several."""
    refit: bool = False
    """Whether left is fitted again to the inputs that the compressed model gives the layer."""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "low_rank"

    def __post_init__(self) -> None:
        cap = break_even_rank(self.out_features, self.in_features)
        if not 1 <= self.rank <= cap:
            raise Unsupported(
                f"rank {self.rank} for a layer of {self.out_features} x {self.in_features}",
                f"allowed: 1 to {cap}, its break-even rank",
            )
        weights = self.rank * (self.out_features + self.in_features)
        key = f"r{self.rank}{self.basis}{'+' if self.refit else ''}"
        costs = Costs(key, f"rank {self.rank}", weights, weights, weights)
        object.__setattr__(self, "costs", costs)

    @property
    def matrices(self) -> Shapes:
        """The left one transposed: a rank is a row of both."""
        return ((self.rank, self.out_features), (self.rank, self.in_features))


@lru_cache(maxsize=1 << 18)
def low_rank(
    out_features: int, in_features: int, rank: int, basis: str = "", refit: bool = False
) -> Dense | LowRank:
    """Return the low-rank plan of a layer; dense from the break-even rank on, where nothing is gained."""
    if rank >= break_even_rank(out_features, in_features):
        return Dense(out_features, in_features)
    return LowRank(out_features, in_features, rank, basis, refit)
