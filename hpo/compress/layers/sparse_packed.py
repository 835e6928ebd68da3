"""Sparse matrices whose weights are held in few bits. Letters: R rows, C columns, N weights that stay."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from hpo.compress.layers.packed import Packed
from hpo.compress.layers.places import Places, empty_places


class SparsePacked(Packed):
    """Places of the weights that stay, and those weights, one after the other, as rows of a packed matrix.

    Its rows are as long as those of the sparse matrix; zeros fill the last.
    """

    form = "sparse"

    def __init__(self, places: Places, values: Packed) -> None:
        super().__init__()
        self.rows, self.columns = places.rows, places.columns
        self.places = places
        self.values = values

    @property
    def packed_weights(self) -> int:
        """What `values`, which counts itself, has too many, below zero: what fills its end is no weight."""
        counted = sum(int(getattr(part, "packed_weights", 0)) for part in self.values.modules())
        return self.places.count - counted

    def dequantise(self) -> Tensor:
        return self.places.spread(self.values.dequantise().flatten()[: self.places.count])

    def size(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "rows": self.rows,
            "columns": self.columns,
            "places": self.places.size(),
            "values": self.values.size(),
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "SparsePacked":
        """Return one of the given size; ``size["values"]`` is an empty packed matrix already."""
        return cls(empty_places(size["places"]), size["values"])


def in_rows(values_N: Tensor, columns: int) -> Tensor:
    """Return numbers cut into rows of so many columns, zeros at the end."""
    return functional.pad(values_N, (0, -len(values_N) % columns)).reshape(-1, columns)
