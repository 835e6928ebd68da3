"""The format in which every row has a table of its own values, some weights aside. Needs no torch."""

from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from hpo.compress.grid import HALF, UNITS
from hpo.compress.sparse_store import index_bytes
from hpo.errors import Unsupported

BITS = (2, 3, 4)
"""Of a code; with more, a table takes more room than it saves."""
WORD = 4
"""Bytes of an int32."""
FARTHEST = 2**31 - 1
"""The largest place in a matrix that an int32 can name."""


@dataclass(frozen=True)
class RowTables:
    """Codes that name one of ``2^bits`` float16 values of the row; and weights that are float16 themselves,
    with where they stand.

    Raises:
        Unsupported: there are tables for other bits only, or more than every weight is set aside.
    """

    bits: int
    outliers: float = 0.0
    """Share of a matrix's weights that are set aside for their size."""
    sensitive: float = 0.0
    """Share of those set aside beside them, for what rounding them would do."""

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise Unsupported(f"tables for {self.bits} bits", f"allowed: {', '.join(map(str, BITS))}")
        if min(self.outliers, self.sensitive) < 0 or self.outliers + self.sensitive > 1:
            raise Unsupported(
                f"shares of {self.outliers} and {self.sensitive} of the weights set aside",
                "allowed: 0 and more, 1 together",
            )

    @property
    def key(self) -> str:
        """Short and unique, e.g. ``tables3o0.004s0.0005``; fit for a file name."""
        outliers = f"o{self.outliers:g}" if self.outliers else ""
        return f"tables{self.bits}{outliers}{f's{self.sensitive:g}' if self.sensitive else ''}"

    def __str__(self) -> str:
        aside = self.outliers + self.sensitive
        return f"{self.bits} bits by tables of rows" + (
            f", {aside:.3g} of the weights aside" if aside else ""
        )

    def aside(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how many weights of a matrix are set aside: for their size, and for what rounding does."""
        return floor(self.outliers * rows * columns), floor(self.sensitive * rows * columns)

    def weights(self, rows: int, columns: int) -> int:
        """Return how many weights the bytes stand for: all of them."""
        return rows * columns

    def fault(self, rows: int, columns: int) -> str:
        """Return why a matrix cannot be held so: never."""
        return ""

    def places(self, rows: int, columns: int) -> dict[str, Any] | None:
        """Return, as JSON, how the places of the weights set aside are held: in compressed sparse rows, or as
        one int32 each, whichever takes fewer bytes; None where there are none."""
        count = sum(self.aside(rows, columns))
        if not count:
            return None
        size = {"rows": rows, "columns": columns, "count": count}
        is_flat = rows * columns <= FARTHEST and count * WORD <= _csr_bytes(rows, columns, count)
        return {"store": "flat" if is_flat else "csr", **size}

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty `Tabled` of `hpo.compress.layers`."""
        return {
            "form": "tables",
            "rows": rows,
            "columns": columns,
            "bits": self.bits,
            "places": self.places(rows, columns),
        }

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of a matrix: codes, tables, and the weights set aside with their places."""
        codes, size = UNITS[self.bits]
        tabled = rows * (ceil(columns / codes) * size + HALF * (1 << self.bits))
        places = self.places(rows, columns)
        if places is None:
            return tabled
        count = sum(self.aside(rows, columns))
        held = count * WORD if places["store"] == "flat" else _csr_bytes(rows, columns, count)
        return tabled + held + count * HALF


def _csr_bytes(rows: int, columns: int, count: int) -> int:
    return count * index_bytes(columns) + (rows + 1) * WORD
