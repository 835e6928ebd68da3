"""Plans of layers that one stage made smaller and a later one changed again. Needs no torch."""

from dataclasses import dataclass, field
from functools import lru_cache

from hpo.compress.layer_plan import Costs, Dense, LayerPlan, Shapes
from hpo.errors import Unsupported


@dataclass(frozen=True)
class Composed:
    """A layer of one matrix, and in place of that matrix another plan.

    Raises:
        Unsupported: the outer plan is not one matrix, or the inner one is of another shape.
    """

    outer: LayerPlan
    inner: LayerPlan
    costs: Costs = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        shape = (self.inner.out_features, self.inner.in_features)
        if self.outer.matrices != (shape,):
            raise Unsupported(
                f"a plan of {shape[0]} x {shape[1]} in place of matrices {self.outer.matrices}",
                "an inner plan takes the place of one matrix of its own shape",
            )
        plain = shape[0] * shape[1]
        outer, inner = self.outer.costs, self.inner.costs
        costs = Costs(
            key=f"{outer.key}>{inner.key}",
            size=f"{outer.size}, {inner.size}",
            parameters=outer.parameters - plain + inner.parameters,
            resident=outer.resident - plain + inner.resident,
            macs_per_token=outer.macs_per_token - plain + inner.macs_per_token,
            macs_per_call=outer.macs_per_call + inner.macs_per_call,
            packed_bytes=outer.packed_bytes + inner.packed_bytes,
        )
        object.__setattr__(self, "costs", costs)

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def out_features(self) -> int:
        return self.outer.out_features

    @property
    def in_features(self) -> int:
        return self.outer.in_features

    @property
    def matrices(self) -> Shapes:
        return self.inner.matrices


@lru_cache(maxsize=1 << 18)
def composed(outer: LayerPlan, inner: LayerPlan) -> LayerPlan:
    """Return a layer changed by two stages, one after the other, or by the one that does anything."""
    if isinstance(inner, Dense):
        return outer
    if isinstance(outer, Dense):
        return inner
    return Composed(outer, inner)
