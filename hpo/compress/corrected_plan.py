"""Plans of layers held in few bits, with or without low-rank factors beside them."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

from hpo.compress.grid import Grid
from hpo.compress.layer_plan import Costs, Dense, Shapes
from hpo.errors import Unsupported


@dataclass(frozen=True)
class Corrected:
    """W in few bits plus factors of what that loses: left (out_features, rank) and right (rank, in_features).

    A weight in few bits still counts as a parameter, and as a multiply-accumulate: a forward multiplies by
    the dequantised W. Rank 0 is quantization alone.

    Raises:
        Unsupported: the rank is above what W can have, or there is no iteration.
    """

    out_features: int
    in_features: int
    grid: Grid
    rank: int
    factor_grid: Grid | None = None
    """Of the factors; None keeps them in the model's precision."""
    iterations: int = 1
    """Turns that the quantizer and the factors take; 1 corrects W as it was rounded first."""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "corrected"
    matrices: ClassVar[Shapes] = ()

    def __post_init__(self) -> None:
        _check(self.out_features, self.in_features, self.rank, 0, self.iterations)
        factors = self.rank * (self.out_features + self.in_features)
        weights = self.out_features * self.in_features + factors
        packed = self.grid.packed_bytes(self.out_features, self.in_features)
        correction = f" + rank {self.rank}" if self.rank else ""
        key = f"q{self.grid.key}r{self.rank}" + (f"i{self.iterations}" if self.iterations > 1 else "")
        if self.factor_grid is not None:
            packed += packed_factors(self.out_features, self.in_features, self.rank, self.factor_grid)
            key += f"f{self.factor_grid.key}"
            correction += f" of {self.factor_grid}"
        resident = factors if self.factor_grid is None else 0
        costs = Costs(key, f"{self.grid}{correction}", weights, resident, weights, 0, packed)
        object.__setattr__(self, "costs", costs)


@dataclass(frozen=True)
class PackedLowRank:
    """Two factors in few bits in place of W, each held as (rank, features), its groups along the features.

    Raises:
        Unsupported: the rank is above what W can have, or there is no iteration.
    """

    out_features: int
    in_features: int
    grid: Grid
    rank: int
    iterations: int = 1
    """Times that each factor answers to the rounded other one."""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "packed_low_rank"
    matrices: ClassVar[Shapes] = ()

    def __post_init__(self) -> None:
        _check(self.out_features, self.in_features, self.rank, 1, self.iterations)
        weights = self.rank * (self.out_features + self.in_features)
        packed = packed_factors(self.out_features, self.in_features, self.rank, self.grid)
        key = f"l{self.grid.key}r{self.rank}" + (f"i{self.iterations}" if self.iterations > 1 else "")
        costs = Costs(key, f"rank {self.rank} of {self.grid}", weights, 0, weights, 0, packed)
        object.__setattr__(self, "costs", costs)


def packed_factors(out_features: int, in_features: int, rank: int, grid: Grid) -> int:
    """Return the bytes of two factors in few bits."""
    return grid.packed_bytes(rank, out_features) + grid.packed_bytes(rank, in_features)


@lru_cache(maxsize=1 << 18)
def corrected(
    out_features: int,
    in_features: int,
    grid: Grid,
    rank: int,
    factor_grid: Grid | None = None,
    iterations: int = 1,
    *,
    weight_bits: int,
) -> Dense | Corrected:
    """Return the plan of a corrected layer, the rank clipped to what W can have; dense where W itself, at
    `weight_bits` a weight, takes no more bytes."""
    rank = min(rank, out_features, in_features)
    if rank == 0:  # nothing to alternate with, nothing to round
        factor_grid, iterations = None, 1
    found = Corrected(out_features, in_features, grid, rank, factor_grid, iterations)
    return found if _is_smaller(found, weight_bits) else Dense(out_features, in_features)


@lru_cache(maxsize=1 << 18)
def packed_low_rank(
    out_features: int, in_features: int, grid: Grid, rank: int, iterations: int = 1, *, weight_bits: int
) -> Dense | PackedLowRank:
    """Return the plan of factors in few bits, the rank clipped to what W can have; dense where W itself, at
    `weight_bits` a weight, takes no more bytes."""
    rank = max(min(rank, out_features, in_features), 1)
    found = PackedLowRank(out_features, in_features, grid, rank, iterations)
    return found if _is_smaller(found, weight_bits) else Dense(out_features, in_features)


def _is_smaller(found: Corrected | PackedLowRank, weight_bits: int) -> bool:
    bits = found.costs.resident * weight_bits + found.costs.packed_bytes * 8
    return bits < found.out_features * found.in_features * weight_bits


def _check(out_features: int, in_features: int, rank: int, least: int, iterations: int) -> None:
    cap = min(out_features, in_features)
    if not least <= rank <= cap:
        raise Unsupported(
            f"rank {rank} for a layer of {out_features} x {in_features}", f"allowed: {least} to {cap}"
        )
    if iterations < 1:
        raise Unsupported(f"{iterations} iterations", "allowed: 1 and more")
