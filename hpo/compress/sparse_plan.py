"""Plans of layers some of whose weights are zero, held whole or without the zeros."""

from dataclasses import dataclass, field
from functools import lru_cache

from hpo.compress.layer_plan import Costs, Dense, LayerPlan, Shapes
from hpo.compress.sparse_pattern import Pattern
from hpo.compress.sparse_store import Layout, Store
from hpo.compress.sparsifier import Sparsifier
from hpo.errors import Unsupported


@dataclass(frozen=True)
class Sparse:
    """A layer of whatever kind, each of whose matrices has zeros.

    Held whole, it costs what it cost before. Held sparse, the weights that stay are its parameters, in the
    model's precision, and where they stand takes bytes of its own. Either way a forward multiplies by the
    whole matrix, so multiply-accumulates stay.

    Raises:
        Unsupported: the layer has no matrix that zeros could be set in, a matrix cannot have the pattern, or
            the pattern cannot be held so.
    """

    inner: LayerPlan
    sparsifier: Sparsifier
    pattern: Pattern
    store: Store = "dense"
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "sparse"

    def __post_init__(self) -> None:
        self._check()
        inner, maps = self.inner.costs, linear_maps(self.inner.matrices)
        zeros = packed = 0
        if self.layout is not None:
            zeros = sum(rows * cols - self.pattern.non_zeros(rows, cols) for rows, cols in maps)
            packed = sum(self.layout.held_bytes(rows, cols) for rows, cols in maps)
        costs = Costs(
            key=f"{self.work}{'' if self.store == 'dense' else self.store}",
            size=self._size(),
            parameters=inner.parameters - zeros,
            resident=inner.resident - zeros,
            macs_per_token=inner.macs_per_token,
            macs_per_call=inner.macs_per_call,
            packed_bytes=inner.packed_bytes + packed,
        )
        object.__setattr__(self, "costs", costs)

    def _check(self) -> None:
        maps = linear_maps(self.inner.matrices)
        if not maps:
            raise Unsupported(
                f"a layer of kind {self.inner.kind} ({self.inner.costs.size}) has no matrix to set zeros in",
                "choose another method for one of the two stages",
            )
        for rows, columns in maps:
            if fault := self.pattern.fault(rows, columns):
                raise Unsupported(
                    f"{self.pattern}: {fault}",
                    "choose another pattern, or give the stage before it a rank_multiple that goes with it",
                )

    def _size(self) -> str:
        held = "dense" if self.store == "dense" else f"as {self.store}"
        zeros = f"{self.pattern}, stored {held}"
        return zeros if isinstance(self.inner, Dense) else f"{self.inner.costs.size}, {zeros}"

    @property
    def work(self) -> str:
        """Key of what is computed, however it is held: fit for a file name."""
        return f"{self.inner.costs.key}~{self.sparsifier.key}-{self.pattern.key}"

    @property
    def layout(self) -> Layout | None:
        """How it is held where the zeros are left out; None where it is held whole."""
        return None if self.store == "dense" else Layout(self.store, self.pattern)

    @property
    def out_features(self) -> int:
        """Of the linear map that is left: fewer than the dense layer's where an earlier stage made it so."""
        return linear_maps(self.inner.matrices)[0][0]

    @property
    def in_features(self) -> int:
        """As `out_features`."""
        return linear_maps(self.inner.matrices)[-1][1]

    @property
    def matrices(self) -> Shapes:
        """Those of the layer before. Two factors without their zeros are no matrices any more."""
        shapes = self.inner.matrices
        return shapes if self.store == "dense" or len(shapes) == 1 else ()


def linear_maps(shapes: Shapes) -> Shapes:
    """Return matrices as the linear maps that they are, outputs by inputs: of two factors the left one is
    not transposed."""
    if len(shapes) != 2:
        return shapes
    (rank, outs), right = shapes
    return ((outs, rank), right)


@lru_cache(maxsize=1 << 18)
def sparse(
    inner: LayerPlan, sparsifier: Sparsifier, pattern: Pattern, store: Store, *, weight_bits: int
) -> LayerPlan:
    """Return a layer with zeros; the layer as it was where the pattern leaves all of its weights.

    Where leaving the zeros out would not save bytes, at `weight_bits` a weight, it is held whole.

    Raises:
        Unsupported: see `Sparse`.
    """
    maps = linear_maps(inner.matrices)
    if maps and all(pattern.non_zeros(rows, columns) == rows * columns for rows, columns in maps):
        return inner
    found, whole = Sparse(inner, sparsifier, pattern, store), Sparse(inner, sparsifier, pattern)
    return found if _bits(found, weight_bits) < _bits(whole, weight_bits) else whole


def _bits(layer: LayerPlan, weight_bits: int) -> int:
    return layer.costs.resident * weight_bits + layer.costs.packed_bytes * 8
