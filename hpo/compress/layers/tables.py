"""Matrices with a table of values for each row, some weights aside. Needs torch alone: exported models carry
the files of this package.

Letters: R rows, C columns, U bytes of a row's codes, K values of a table, N weights that are set aside.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hpo.compress.layers.packed import UNITS, Packed, unpack
from hpo.compress.layers.places import Csr, Places


class Tabled(Packed):
    """``table of the row[code]``, and some weights as they were.

    codes: (R, U) uint8; tables: (R, K) int16 that hold float16 bits; values: (N,) int16 that hold those of
    the weights set aside, row after row, which stand at `places`.
    """

    form = "tables"
    codes: Tensor
    tables: Tensor
    values: Tensor | None

    def __init__(
        self,
        codes_RU: Tensor,
        tables_RK: Tensor,
        places: Places | None,
        values_N: Tensor | None,
        *,
        columns: int,
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.bits = len(codes_RU), columns, (tables_RK.shape[1] - 1).bit_length()
        self.register_buffer("codes", codes_RU)
        self.register_buffer("tables", tables_RK)
        self.places = places
        self.register_buffer("values", values_N)

    def dequantise(self) -> Tensor:
        codes_RC = unpack(self.codes, self.bits, self.columns).long()
        found = self.tables.view(torch.float16).float().gather(1, codes_RC)
        if self.places is None or self.values is None:
            return found
        return found.masked_scatter(self.places.mask(), self.values.view(torch.float16).float())

    def size(self) -> dict[str, Any]:
        return {
            "form": self.form,
            "rows": self.rows,
            "columns": self.columns,
            "bits": self.bits,
            "places": None if self.places is None else self.places.size(),
        }

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Tabled":
        rows, columns, bits = size["rows"], size["columns"], size["bits"]
        a_unit, its_bytes = UNITS[bits]
        codes = torch.zeros(rows, -(-columns // a_unit) * its_bytes, dtype=torch.uint8)
        tables = torch.zeros(rows, 2**bits, dtype=torch.int16)
        if size["places"] is None:
            return cls(codes, tables, None, None, columns=columns)
        places = ASIDE[size["places"]["store"]].empty(size["places"])
        return cls(codes, tables, places, torch.zeros(places.count, dtype=torch.int16), columns=columns)

    def extra_repr(self) -> str:
        aside = "" if self.places is None else f", {self.places.count} weights aside"
        return f"{self.rows} x {self.columns}, {self.bits} bits by tables of rows{aside}"


class Flat(Places):
    """One number a weight: where it stands among all of the matrix, row after row. indices: (N,) int32."""

    store = "flat"
    indices: Tensor

    def __init__(self, indices_N: Tensor, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns, self.count = rows, columns, len(indices_N)
        self.register_buffer("indices", indices_N)

    @classmethod
    def of(cls, mask_RC: Tensor, size: Mapping[str, Any]) -> "Flat":
        rows, columns = mask_RC.shape
        return cls(mask_RC.flatten().nonzero()[:, 0].to(torch.int32), rows, columns)

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Flat":
        return cls(torch.zeros(size["count"], dtype=torch.int32), size["rows"], size["columns"])

    def mask(self) -> Tensor:
        mask = torch.zeros(self.rows * self.columns, dtype=torch.bool, device=self.indices.device)
        mask[self.indices] = True
        return mask.reshape(self.rows, self.columns)


ASIDE: dict[str, type[Places]] = {"csr": Csr, "flat": Flat}
"""How the places of weights set aside may be held."""
