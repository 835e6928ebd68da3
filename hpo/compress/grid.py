"""How a matrix is rounded to few bits, and the exact bytes that takes. Needs no torch: plans use it."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from hpo.errors import Unsupported

UNITS = {2: (4, 1), 3: (8, 3), 4: (2, 1), 8: (1, 1)}
"""Bits of a code -> how many codes are packed together, and into how many bytes."""

HALF = 2
"""Bytes of a scale or an offset: float16."""


@dataclass(frozen=True)
class Grid:
    """A grid of evenly spaced values for each group of neighbours in a row.

    Raises:
        Unsupported: the bits are none that can be packed, or the group size is negative.
    """

    bits: int
    group_size: int = 0
    """Columns that share a scale, the last group of a row being shorter where they do not divide; 0 means
    the whole row."""
    symmetric: bool = True
    """Whether the values lie around zero: a scale a group. Otherwise also an offset, the smallest value."""

    def __post_init__(self) -> None:
        if self.bits not in UNITS:
            raise Unsupported(f"codes of {self.bits} bits", f"allowed: {', '.join(map(str, UNITS))}")
        if self.group_size < 0:
            raise Unsupported(f"groups of {self.group_size} columns", "allowed: 1 and more; 0 for whole rows")

    @property
    def key(self) -> str:
        """Short and unique, e.g. ``4g32`` or ``3row-offset``; fit for a file name."""
        group = f"g{self.group_size}" if self.group_size else "row"
        return f"{self.bits}{group}{'' if self.symmetric else '-offset'}"

    def __str__(self) -> str:
        group = f"groups of {self.group_size}" if self.group_size else "whole rows"
        return f"{self.bits} bits in {group}{'' if self.symmetric else ' with offsets'}"

    def weights(self, rows: int, columns: int) -> int:
        """Return how many weights the bytes stand for: all of them."""
        return rows * columns

    def fault(self, rows: int, columns: int) -> str:
        """Return why a matrix cannot be held so: never, a last group may be shorter than the others."""
        return ""

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty matrix of `hpo.compress.layers.packed.Rounded`."""
        return {
            "form": "rounded",
            "rows": rows,
            "columns": columns,
            "bits": self.bits,
            "group_size": self.group_size,
            "symmetric": self.symmetric,
        }

    def groups(self, columns: int) -> int:
        """Return the number of groups of a row."""
        return ceil(columns / self.group_size) if self.group_size else 1

    def row_bytes(self, columns: int) -> int:
        """Return the bytes that the codes of a row take; a row begins at a byte of its own."""
        codes, size = UNITS[self.bits]
        return ceil(columns / codes) * size

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of a rounded matrix: codes, scales and offsets."""
        a_group = HALF if self.symmetric else 2 * HALF
        return rows * (self.row_bytes(columns) + self.groups(columns) * a_group)
