"""Plans of layers whose matrix has lost its small singular values and is kept whole all the same."""

from dataclasses import dataclass, field
from functools import lru_cache

from hpo.compress.layer_plan import Costs, Dense, Shapes
from hpo.errors import Unsupported


@dataclass(frozen=True)
class Truncated:
    """A dense matrix of a lower rank: it costs what the layer cost before.

    Raises:
        Unsupported: the rank is below 1 or above the smaller side of the matrix.
    """

    out_features: int
    in_features: int
    rank: int
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "truncated"

    def __post_init__(self) -> None:
        cap = min(self.out_features, self.in_features)
        if not 1 <= self.rank <= cap:
            raise Unsupported(
                f"rank {self.rank} for a matrix of {self.out_features} x {self.in_features}",
                f"allowed: 1 to {cap}",
            )
        weights = self.out_features * self.in_features
        costs = Costs(f"t{self.rank}", f"rank {self.rank}, stored whole", weights, weights, weights)
        object.__setattr__(self, "costs", costs)

    @property
    def matrices(self) -> Shapes:
        return ((self.out_features, self.in_features),)


@lru_cache(maxsize=1 << 16)
def truncated(out_features: int, in_features: int, rank: int) -> Dense | Truncated:
    """Return the plan of a layer truncated to a rank; dense at full rank, where nothing is lost."""
    if rank >= min(out_features, in_features):
        return Dense(out_features, in_features)
    return Truncated(out_features, in_features, rank)
