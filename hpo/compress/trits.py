"""The format whose weights are -1, 0 or 1 times a scale. Needs no torch: plans use it."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from hpo.compress.grid import HALF
from hpo.errors import Unsupported

A_BYTE = 5
"""Codes that a byte holds as a number of base 3: 1.6 bits each, where 1.585 would do."""


@dataclass(frozen=True)
class Trits:
    """Ternary codes, five to a byte, and a float16 scale for each group of neighbours in a row.

    Raises:
        Unsupported: the group size is negative.
    """

    group_size: int = 0
    """Columns that share a scale, the last group of a row being shorter where they do not divide; 0 means
    the whole row."""

    def __post_init__(self) -> None:
        if self.group_size < 0:
            raise Unsupported(f"groups of {self.group_size} columns", "allowed: 1 and more; 0 for whole rows")

    @property
    def key(self) -> str:
        """Short and unique, e.g. ``tritsg128`` or ``tritsrow``; fit for a file name."""
        return f"trits{f'g{self.group_size}' if self.group_size else 'row'}"

    def __str__(self) -> str:
        return f"ternary in {f'groups of {self.group_size}' if self.group_size else 'whole rows'}"

    def weights(self, rows: int, columns: int) -> int:
        """Return how many weights the bytes stand for: all of them."""
        return rows * columns

    def fault(self, rows: int, columns: int) -> str:
        """Return why a matrix cannot be held so: never, a last group may be shorter than the others."""
        return ""

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty `Ternary` of `hpo.compress.layers`."""
        return {"form": "ternary", "rows": rows, "columns": columns, "group_size": self.group_size}

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of a matrix: codes and scales."""
        groups = ceil(columns / self.group_size) if self.group_size else 1
        return rows * (ceil(columns / A_BYTE) + groups * HALF)
