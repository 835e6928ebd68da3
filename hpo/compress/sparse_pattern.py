"""Where the zeros of a sparse matrix may stand, and how many there are: exactly, before it is made. Needs no
torch.

A matrix is seen as the linear map it is: a row is an output, its columns are the inputs.
"""

import re
from dataclasses import dataclass
from typing import Protocol, Self

from hpo.errors import Unsupported

DECIMALS = 4
"""A sparsity is taken to so many, so that candidates that hardly differ are one plan."""
LARGEST_GROUP = 64
"""Of an N:M pattern."""


class Pattern(Protocol):
    """A frozen value."""

    def __hash__(self) -> int: ...

    @property
    def key(self) -> str:
        """Short and unique; fit for a file name."""
        ...

    def __str__(self) -> str:
        """In words, as tables show it."""
        ...

    @property
    def sparsity(self) -> float:
        """Share of zeros, about: counts are rounded."""
        ...

    def non_zeros(self, rows: int, columns: int) -> int:
        """Return how many weights of a matrix stay."""
        ...

    def fault(self, rows: int, columns: int) -> str:
        """Return why a matrix cannot have this pattern, in words; empty if it can."""
        ...


@dataclass(frozen=True)
class Unstructured:
    """Zeros anywhere: so many in the whole matrix, or the same number in every row.

    One weight stays at least, of the matrix or of every row.

    Raises:
        Unsupported: the sparsity is no share below 1.
    """

    sparsity: float
    by_row: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", round(self.sparsity, DECIMALS))
        if not 0 <= self.sparsity < 1:
            raise Unsupported(f"a sparsity of {self.sparsity:g}", "allowed: from 0 to below 1")

    @property
    def key(self) -> str:
        return f"{self.sparsity:g}{'row' if self.by_row else ''}"

    def __str__(self) -> str:
        return f"{100 * self.sparsity:g} % zeros"

    def zeros(self, weights: int) -> int:
        """Return the zeros among weights that are compared with one another."""
        return min(round(self.sparsity * weights), weights - 1)

    def non_zeros(self, rows: int, columns: int) -> int:
        if self.by_row:
            return rows * (columns - self.zeros(columns))
        return rows * columns - self.zeros(rows * columns)

    def fault(self, rows: int, columns: int) -> str:
        return ""


@dataclass(frozen=True)
class NOfM:
    """In every row, `kept` of each `group` columns that follow one another stay: 2:4 is 2 of 4.

    Raises:
        Unsupported: there is no such pattern.
    """

    kept: int
    group: int

    def __post_init__(self) -> None:
        if not 0 < self.kept < self.group <= LARGEST_GROUP:
            raise Unsupported(
                f"a pattern of {self.kept}:{self.group}",
                f"allowed: N:M with N from 1 to below M, and M up to {LARGEST_GROUP}, such as 2:4",
            )

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Return the pattern of a text such as ``2:4``.

        Raises:
            Unsupported: it is no such text.
        """
        found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
        if found is None:
            raise Unsupported(f"unknown pattern {text!r}", "allowed: unstructured, or N:M such as 2:4")
        return cls(int(found[1]), int(found[2]))

    @property
    def key(self) -> str:
        return f"{self.kept}of{self.group}"

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"

    @property
    def sparsity(self) -> float:
        return 1 - self.kept / self.group

    def non_zeros(self, rows: int, columns: int) -> int:
        return rows * (columns // self.group) * self.kept

    def fault(self, rows: int, columns: int) -> str:
        if columns % self.group:
            return f"groups of {self.group} do not divide a row of {columns}"
        return ""
