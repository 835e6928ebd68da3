"""Weights that stay, of a matrix held without its zeros, in few bits."""

from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from torch import Tensor

from hpo.compress.layer_plan import LayerPlan
from hpo.compress.layers.int8 import Int8
from hpo.compress.layers.places import places_of
from hpo.compress.layers.sparse_packed import SparsePacked, in_rows
from hpo.compress.quantizer import Format, Quantizer
from hpo.compress.sparse_math import largest, magnitudes
from hpo.compress.sparse_plan import Sparse
from hpo.compress.sparse_store import Layout


@dataclass(frozen=True)
class SparseFormat:
    """Places of the weights that stay, and those weights in another format: one after the other, in rows as
    long as the matrix's."""

    layout: Layout
    values: Format

    @property
    def key(self) -> str:
        return f"{self.layout.key}-{self.values.key}"

    def __str__(self) -> str:
        return f"{self.layout.pattern}, stored as {self.layout.store}, {self.values}"

    def weights(self, rows: int, columns: int) -> int:
        """Return how many weights stay."""
        return self.layout.pattern.non_zeros(rows, columns)

    def packed_bytes(self, rows: int, columns: int) -> int:
        values = self.values.packed_bytes(self._value_rows(rows, columns), columns)
        return self.layout.held_bytes(rows, columns) + values

    def fault(self, rows: int, columns: int) -> str:
        if self.values.size(1, columns)["form"] == Int8.form:
            return "a product of integers takes the matrix with its zeros, so give store: dense"
        value_rows = self._value_rows(rows, columns)
        return self.layout.pattern.fault(rows, columns) or self.values.fault(value_rows, columns)

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty `SparsePacked` of `hpo.compress.layers`."""
        return {
            "form": "sparse",
            "rows": rows,
            "columns": columns,
            "places": self.layout.size(rows, columns),
            "values": self.values.size(self._value_rows(rows, columns), columns),
        }

    def _value_rows(self, rows: int, columns: int) -> int:
        return ceil(self.weights(rows, columns) / columns)


@dataclass(frozen=True)
class OfTheRest:
    """Leaves zeros out and gives the weights that stay to another quantizer; that one sees no inputs."""

    layout: Layout
    values: Quantizer
    chosen: str
    """Key of how the zeros were chosen, which no format shows."""
    needs_gram: ClassVar[bool] = False

    @property
    def key(self) -> str:
        return f"{self.chosen}-{self.values.key}"

    @property
    def format(self) -> SparseFormat:
        return SparseFormat(self.layout, self.values.format)

    @property
    def noise(self) -> float:
        return self.values.noise

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> SparsePacked:
        """Return the matrix without the smallest of its weights, as many as the pattern says: those that are
        zero already.

        Raises:
            NonFinite: the weight holds NaN or infinity.
            Unsupported: a weight is beyond what the format can hold, or the matrix cannot have the pattern.
        """
        mask_OI = largest(magnitudes(weight_OI), self.layout.pattern)
        values = self.values.quantise(in_rows(weight_OI[mask_OI], weight_OI.shape[1]))
        return SparsePacked(places_of(mask_OI, self.layout.size(*weight_OI.shape)), values)


def without_zeros(layer: LayerPlan, quantizer: Quantizer) -> tuple[LayerPlan, Quantizer]:
    """Return, of a layer of one matrix that is held without zeros, the one it was before they were set, and a
    quantizer that leaves them out again; any other layer and the quantizer as they are."""
    if not isinstance(layer, Sparse) or layer.layout is None or not layer.matrices:
        return layer, quantizer
    return layer.inner, OfTheRest(layer.layout, quantizer, layer.sparsifier.key)
