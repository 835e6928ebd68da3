"""Plans of layers that share a basis with the same layer of neighbouring blocks, and which those are."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from hpo.compress.architecture import Architecture, LayerShape, break_even_rank
from hpo.compress.layer_plan import Costs, Dense, Shapes
from hpo.errors import Unsupported

Share = Literal["all", "attention", "mlp"]
"""Which layers share, of those that may."""

WRITERS = frozenset(
    ("o_proj", "out_proj", "dense", "wo", "c_proj", "down_proj", "fc2", "fc_out", "dense_4h_to_h", "w2")
)
"""Types of layers that write into the residual stream: attention's output and the end of the MLP. What
they read has little in common from block to block, and sharing costs more there than it saves; the others
read the residual stream itself (Wang et al. 2024, arXiv:2410.03765)."""


@dataclass(frozen=True)
class SharedBasis:
    """A layer in two factors: coefficients (out_features, rank) of its own times a basis (rank, in_features)
    that the `members` layers of a group have in common. The first of them, at position 0, pays for it.

    Raises:
        Unsupported: there is no such position, or the rank is above the break-even rank of the group.
    """

    out_features: int
    in_features: int
    rank: int
    position: int
    members: int
    """1 for a layer by itself, which is then of low rank and nothing more."""
    is_fitted: bool = True
    """Whether the coefficients answer to the layer's own inputs; see `hpo.compress.sharing_math`."""
    group: int = field(default=2, compare=False)
    """Blocks to a group, of which the last may have fewer. With the next: whose factors are sliced."""
    share: Share = field(default="all", compare=False)
    costs: Costs = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.position < self.members:
            raise Unsupported(
                f"position {self.position} in a group of {self.members}", "positions count from 0"
            )
        cap = break_even_rank(self.members * self.out_features, self.in_features)
        if not 1 <= self.rank <= cap:
            raise Unsupported(
                f"rank {self.rank} for {self.members} layers of {self.out_features} x {self.in_features}",
                f"allowed: 1 to {cap}, the break-even rank of the group",
            )
        computed = self.rank * (self.out_features + self.in_features)
        held = computed if self.position == 0 else self.rank * self.out_features
        fitted = "" if self.is_fitted or self.members == 1 else "c"
        key = f"s{self.rank}.{self.position}of{self.members}{fitted}"
        shared = f", basis shared by {self.members}" if self.members > 1 else ""
        object.__setattr__(self, "costs", Costs(key, f"rank {self.rank}{shared}", held, held, computed))

    @property
    def kind(self) -> str:
        return "shared_basis" if self.members > 1 else "low_rank"

    @property
    def matrices(self) -> Shapes:
        """None where a basis is shared: it is not one layer's to change."""
        return () if self.members > 1 else ((self.rank, self.out_features), (self.rank, self.in_features))


@lru_cache(maxsize=1 << 18)
def shared_basis(
    out_features: int,
    in_features: int,
    rank: int,
    position: int,
    members: int,
    is_fitted: bool,
    group: int,
    share: Share,
) -> Dense | SharedBasis:
    """Return the plan of a layer in a group; dense from the group's break-even rank on."""
    if rank >= break_even_rank(members * out_features, in_features):
        return Dense(out_features, in_features)
    return SharedBasis(out_features, in_features, rank, position, members, is_fitted, group, share)


@lru_cache(maxsize=64)
def groups(architecture: Architecture, size: int, share: Share = "all") -> tuple[tuple[int, ...], ...]:
    """Return the layers of a model, by their positions in it, in groups that may share a basis.

    Blocks are taken `size` at a time from the first on; the same layer of each makes a group if the shapes
    are equal. Every layer is in one group, those that may not share in a group of their own. Groups are in
    order of their first layer.
    """
    found: dict[tuple[object, ...], list[int]] = {}
    for index, layer in enumerate(architecture.layers):
        shape = (role(layer), layer.out_features, layer.in_features)
        place = layer.block // size if may_share(layer, share) else f"block {layer.block}"
        found.setdefault((*shape, place), []).append(index)
    return tuple(map(tuple, found.values()))


def may_share(layer: LayerShape, share: Share) -> bool:
    return layer.type not in WRITERS and share in ("all", layer.group)


def role(layer: LayerShape) -> str:
    """Return a layer's path with the number of its block left out: what is the same layer in another one."""
    return re.sub(r"\.\d+\.", ".*.", layer.name, count=1)
