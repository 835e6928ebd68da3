"""The format of 4 bits with the values of a normal distribution. Needs no torch: plans use it."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from hpo.compress.grid import HALF, UNITS
from hpo.errors import Unsupported

BITS = 4
SINGLE = 4
"""Bytes of a float32."""
BLOCK = 256
"""Scales that share a scale of theirs, where they are in few bits too."""


@dataclass(frozen=True)
class NormalFloat:
    """16 values between -1 and 1, the same everywhere, times a scale for each group of neighbours in a row.

    Raises:
        Unsupported: the group size is negative.
    """

    group_size: int = 64
    """Columns that share a scale, the last group of a row being shorter where they do not divide; 0 means
    the whole row."""
    double: bool = False
    """Whether scales are in 8 bits: their distance from the mean of all, with a float32 for every 256 of
    them, row after row. Otherwise they are float16."""

    def __post_init__(self) -> None:
        if self.group_size < 0:
            raise Unsupported(f"groups of {self.group_size} columns", "allowed: 1 and more; 0 for whole rows")

    @property
    def key(self) -> str:
        """Short and unique, e.g. ``nf4g64`` or ``nf4row-double``; fit for a file name."""
        group = f"g{self.group_size}" if self.group_size else "row"
        return f"nf4{group}{'-double' if self.double else ''}"

    def __str__(self) -> str:
        group = f"groups of {self.group_size}" if self.group_size else "whole rows"
        return f"4 bits (NF4) in {group}{', scales in 8 bits' if self.double else ''}"

    def weights(self, rows: int, columns: int) -> int:
        """Return how many weights the bytes stand for: all of them."""
        return rows * columns

    def fault(self, rows: int, columns: int) -> str:
        """Return why a matrix cannot be held so: never, a last group may be shorter than the others."""
        return ""

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty `NormalLevels` of `hpo.compress.layers`."""
        return {
            "form": "nf4",
            "rows": rows,
            "columns": columns,
            "group_size": self.group_size,
            "double": self.double,
        }

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of a matrix: codes, and scales with what they need."""
        codes, size = UNITS[BITS]
        scales = rows * (ceil(columns / self.group_size) if self.group_size else 1)
        held = scales + SINGLE * (ceil(scales / BLOCK) + 1) if self.double else scales * HALF
        return rows * ceil(columns / codes) * size + held
