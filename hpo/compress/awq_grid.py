"""A grid whose columns are scaled, and the exact bytes that takes. Needs no torch: plans use it."""

from dataclasses import dataclass
from typing import Any

from hpo.compress.grid import HALF, Grid


@dataclass(frozen=True)
class ScaledGrid:
    """Every column is multiplied by a number of its own, put on a grid, and divided by it again in use."""

    grid: Grid

    @property
    def key(self) -> str:
        """Short and unique, e.g. ``4g32s``; fit for a file name."""
        return f"{self.grid.key}s"

    def __str__(self) -> str:
        return f"{self.grid}, columns scaled"

    def weights(self, rows: int, columns: int) -> int:
        """Return how many weights the bytes stand for: all of them."""
        return self.grid.weights(rows, columns)

    def fault(self, rows: int, columns: int) -> str:
        """Return why a matrix cannot be held so, as the grid says."""
        return self.grid.fault(rows, columns)

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of a matrix: those of the grid, and a float16 a column."""
        return self.grid.packed_bytes(rows, columns) + HALF * columns

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty matrix of `hpo.compress.layers.scaled.Scaled`."""
        return {**self.grid.size(rows, columns), "form": "scaled"}
