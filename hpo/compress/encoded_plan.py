"""Plans of layers whose matrices are held in few bits, or in whatever other format a quantizer puts them."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

from hpo.compress.layer_plan import Costs, Dense, LayerPlan, Shapes
from hpo.compress.quantizer import Quantizer
from hpo.compress.sparse_quantizer import without_zeros
from hpo.errors import Unsupported


@dataclass(frozen=True)
class Encoded:
    """A layer of whatever kind, each of whose matrices is in a quantizer's format.

    A weight in few bits still counts as a parameter, and as a multiply-accumulate: a forward multiplies by
    what the format stands for.

    Raises:
        Unsupported: the layer has no matrix to put into a format, the format cannot hold one, or a correction
            is asked for that the layer cannot have.
    """

    inner: LayerPlan
    quantizer: Quantizer
    rank: int = 0
    """Of factors, in the model's precision, of what the format loses; for a layer of one matrix."""
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "packed"
    matrices: ClassVar[Shapes] = ()

    def __post_init__(self) -> None:
        inner, shapes, form = self.inner.costs, self.inner.matrices, self.quantizer.format
        self._check(shapes)
        plain = sum(rows * columns for rows, columns in shapes)
        stored = sum(form.weights(rows, columns) for rows, columns in shapes)
        packed = sum(form.packed_bytes(rows, columns) for rows, columns in shapes)
        factors = self.rank * sum(shapes[0])
        size = str(form) if isinstance(self.inner, Dense) else f"{inner.size}, {form}"
        costs = Costs(
            key=f"{inner.key}/{self.quantizer.key}{form.key}" + (f"r{self.rank}" if self.rank else ""),
            size=size + (f" + rank {self.rank}" if self.rank else ""),
            parameters=inner.parameters - plain + stored + factors,
            resident=inner.resident - plain + factors,
            macs_per_token=inner.macs_per_token + factors,
            macs_per_call=inner.macs_per_call,
            packed_bytes=inner.packed_bytes + packed,
        )
        object.__setattr__(self, "costs", costs)

    def _check(self, shapes: Shapes) -> None:
        form = self.quantizer.format
        if not shapes:
            raise Unsupported(
                f"a layer of kind {self.inner.kind} ({self.inner.costs.size}) has no matrix for {form}",
                "choose another method for one of the two stages",
            )
        for rows, columns in shapes:
            if fault := form.fault(rows, columns):
                raise Unsupported(f"{form}: {fault}", "see hpo list methods for the knobs")
        cap = min(shapes[0]) if len(shapes) == 1 else 0
        if not 0 <= self.rank <= cap:
            raise Unsupported(
                f"a correction of rank {self.rank} for a layer of kind {self.inner.kind} with matrices "
                f"{', '.join(f'{rows} x {columns}' for rows, columns in shapes)}",
                f"allowed: 0 to {cap}",
            )

    @property
    def out_features(self) -> int:
        return self.inner.out_features

    @property
    def in_features(self) -> int:
        return self.inner.in_features


@lru_cache(maxsize=1 << 18)
def encoded(inner: LayerPlan, quantizer: Quantizer, rank: int = 0, *, weight_bits: int) -> LayerPlan:
    """Return a layer with its matrices in few bits; the layer as it was where that saves no bytes at
    `weight_bits` a weight.

    Raises:
        Unsupported: see `Encoded`.
    """
    found = Encoded(*without_zeros(inner, quantizer), rank)
    before = inner.costs.resident * weight_bits + inner.costs.packed_bytes * 8
    return found if found.costs.resident * weight_bits + found.costs.packed_bytes * 8 < before else inner
