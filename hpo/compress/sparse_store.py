"""How the places of a sparse matrix's non-zero weights are held, and the exact bytes of that. Needs no torch.

The weights themselves stand beside, in row order: in the model's precision, or in few bits.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from hpo.compress.grid import UNITS
from hpo.compress.sparse_pattern import NOfM, Pattern
from hpo.errors import Unsupported

Store = Literal["dense", "bitmap", "n_m", "csr"]
"""Whole, zeros and all; one bit a weight; in an N:M pattern where in its group a weight stands, 2 bits of it
with groups of 4; or compressed sparse rows."""

_POINTER = 4
"""Bytes of the number of a row's first weight, int32."""
_SHORT = 2**15
"""Columns that a number of 2 bytes can name."""


@dataclass(frozen=True)
class Layout:
    """How a store that leaves the zeros out holds the places of the weights that stay.

    Raises:
        Unsupported: the store is for N:M patterns, and the pattern is none.
    """

    store: Store
    pattern: Pattern

    def __post_init__(self) -> None:
        if self.store == "n_m" and not isinstance(self.pattern, NOfM):
            raise Unsupported(
                f"store n_m of a matrix of {self.pattern}",
                "give an N:M pattern such as 2:4, or store: bitmap, csr or dense",
            )

    @property
    def key(self) -> str:
        return f"{self.store}{self.pattern.key}"

    def held_bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of the places of a matrix."""
        count = self.pattern.non_zeros(rows, columns)
        if self.store == "bitmap":
            return rows * ceil(columns / 8)
        if self.store == "csr":
            return count * index_bytes(columns) + (rows + 1) * _POINTER
        assert isinstance(self.pattern, NOfM)
        codes, size = UNITS[place_bits(self.pattern.group)]
        return rows * ceil(count // rows / codes) * size

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what it takes to make empty ones: see `hpo.compress.layers.places`."""
        size = {"store": self.store, "rows": rows, "columns": columns}
        if isinstance(self.pattern, NOfM) and self.store == "n_m":
            return {**size, "kept": self.pattern.kept, "group": self.pattern.group}
        return {**size, "count": self.pattern.non_zeros(rows, columns)}


def index_bytes(columns: int) -> int:
    """Return the bytes of the number of a column."""
    return 2 if columns <= _SHORT else 4


def place_bits(group: int) -> int:
    """Return the bits of a place in a group: the least that can be packed."""
    return min(bits for bits in UNITS if 2**bits >= group)
