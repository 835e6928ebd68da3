"""Plans of a model whose residual stream is narrower, with exact costs. Needs no torch.

Letters: W width that is left.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from hpo.compress.layer_plan import Costs, Shapes
from hpo.errors import Unsupported

Rotations = Literal["per_layer", "shared"]
"""Whether each attention and each MLP reads the stream in a basis of its own, or all in one."""
Side = Literal["reads", "writes"]
"""What a layer does with the stream: its columns are the width, or its rows."""

KIND = "sliced"
"""Of the part of a plan that says that the stream is narrower."""


@dataclass(frozen=True)
class Sliced:
    """A layer that reads or writes a narrower stream: one plain matrix, turned into the stream's basis.

    Raises:
        Unsupported: the width is not below the dense one.
    """

    out_features: int
    in_features: int
    side: Side
    width: int
    """Of the stream, that is left."""
    rotations: Rotations
    has_bias: bool = False
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "narrow"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= self.dense_width:
            raise Unsupported(
                f"a width of {self.width} in place of {self.dense_width}", f"allowed: 1 to {self.dense_width}"
            )
        weights = self.rows * self.columns
        held = weights - self.has_bias * (self.out_features - self.rows)
        size = f"{self.rows} x {self.columns} of {self.out_features} x {self.in_features}"
        key = f"w{self.width}{self.rotations}"
        object.__setattr__(self, "costs", Costs(key, size, held, held, weights))

    @property
    def dense_width(self) -> int:
        return self.in_features if self.side == "reads" else self.out_features

    @property
    def rows(self) -> int:
        return self.width if self.side == "writes" else self.out_features

    @property
    def columns(self) -> int:
        return self.width if self.side == "reads" else self.in_features

    @property
    def matrices(self) -> Shapes:
        return ((self.rows, self.columns),)


@dataclass(frozen=True)
class SlicedStream:
    """What the stream passes beside the linear layers: the embedding, norms, matrices between bases, and the
    output layer.

    Norms lose their scales, which are multiplied into the layers after them. The output layer has a matrix of
    its own, also where it was tied to the embedding.
    """

    vocabulary: int
    dense_width: int
    width: int
    tied: bool
    """Whether embedding and output layer were one matrix."""
    norms: int
    """Norms of the whole width, the last one included."""
    rotations: Rotations
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = KIND

    def __post_init__(self) -> None:
        # From the basis of each norm to that of the next.
        between = (self.norms - 1) * self.width**2 if self.rotations == "per_layer" else 0
        table = self.vocabulary * self.width
        costs = Costs(
            key=f"w{self.width}{self.rotations}",
            size=f"width {self.width} of {self.dense_width}",
            parameters=2 * table + between,
            resident=2 * table + between,
            macs_per_token=table + between,
        )
        object.__setattr__(self, "costs", costs)

    @property
    def dense_parameters(self) -> int:
        tables = 1 if self.tied else 2
        return (tables * self.vocabulary + self.norms) * self.dense_width

    @property
    def dense_macs_per_token(self) -> int:
        """Of the output layer."""
        return self.vocabulary * self.dense_width


@lru_cache(maxsize=1 << 16)
def sliced(
    out_features: int, in_features: int, side: Side, width: int, rotations: Rotations, has_bias: bool
) -> Sliced:
    """Return the plan of a layer, one object for equal ones."""
    return Sliced(out_features, in_features, side, width, rotations, has_bias)
