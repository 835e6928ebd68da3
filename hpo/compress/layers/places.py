"""Where the non-zero weights of a sparse matrix stand. Needs torch alone: exported models carry the files of
this package.

Letters: R rows, C columns, U bytes of a row, K weights of a row that stay, N weights of all rows.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.layers.packed import UNITS, pack, unpack


class Places(nn.Module):
    """Of a matrix of shape (rows, columns). It holds buffers only, none of a floating type."""

    store: ClassVar[str]
    """Its name in a configuration."""
    rows: int
    columns: int
    count: int
    """How many weights stay."""

    @classmethod
    def of(cls, mask_RC: Tensor, size: Mapping[str, Any]) -> "Places":
        """Return the places where a mask is true; `size` is as of `empty`."""
        raise NotImplementedError

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Places":
        """Return some of the given size, their values not set."""
        raise NotImplementedError

    def size(self) -> dict[str, Any]:
        """Return, as JSON, what it takes to make empty ones."""
        return {"store": self.store, "rows": self.rows, "columns": self.columns, "count": self.count}

    def mask(self) -> Tensor:
        """Return which weights stay, (R, C) bool."""
        raise NotImplementedError

    def spread(self, values_N: Tensor) -> Tensor:
        """Return the matrix, (R, C), whose weights that stay are these, row after row."""
        mask = self.mask()
        return values_N.new_zeros(mask.shape).masked_scatter(mask, values_N)

    def extra_repr(self) -> str:
        return f"{self.count} of {self.rows} x {self.columns}, {self.store}"


class Bitmap(Places):
    """One bit a weight, from the lowest up; a row begins at a byte of its own. bits: (R, U) uint8."""

    store = "bitmap"
    bits: Tensor

    def __init__(self, bits_RU: Tensor, columns: int, count: int) -> None:
        super().__init__()
        self.rows, self.columns, self.count = len(bits_RU), columns, count
        self.register_buffer("bits", bits_RU)

    @classmethod
    def of(cls, mask_RC: Tensor, size: Mapping[str, Any]) -> "Bitmap":
        rows, columns = mask_RC.shape
        eights = functional.pad(mask_RC.to(torch.uint8), (0, -columns % 8)).reshape(rows, -1, 8)
        bits = (eights << _bit_steps(mask_RC.device)).sum(-1, dtype=torch.uint8)
        return cls(bits, columns, int(mask_RC.sum()))

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Bitmap":
        columns = size["columns"]
        return cls(torch.zeros(size["rows"], -(-columns // 8), dtype=torch.uint8), columns, size["count"])

    def mask(self) -> Tensor:
        eights = (self.bits[..., None] >> _bit_steps(self.bits.device)) & 1
        return eights.flatten(1)[:, : self.columns].bool()


class InGroups(Places):
    """N:M: of every `group` columns `kept` stay, and each says where it stands among them.

    codes: (R, U) uint8, packed as codes of few bits are.
    """

    store = "n_m"
    codes: Tensor

    def __init__(self, codes_RU: Tensor, columns: int, kept: int, group: int) -> None:
        super().__init__()
        self.rows, self.columns, self.kept, self.group = len(codes_RU), columns, kept, group
        self.count = self.rows * columns // group * kept
        self.register_buffer("codes", codes_RU)

    @classmethod
    def of(cls, mask_RC: Tensor, size: Mapping[str, Any]) -> "InGroups":
        rows, columns = mask_RC.shape
        kept, group = size["kept"], size["group"]
        places = mask_RC.reshape(rows, -1, group).nonzero()[:, 2].reshape(rows, -1)
        return cls(pack(places.to(torch.uint8), _place_bits(group)), columns, kept, group)

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "InGroups":
        columns, kept, group = size["columns"], size["kept"], size["group"]
        a_unit, its_bytes = UNITS[_place_bits(group)]
        width = -(-(columns // group * kept) // a_unit) * its_bytes
        return cls(torch.zeros(size["rows"], width, dtype=torch.uint8), columns, kept, group)

    def size(self) -> dict[str, Any]:
        size = {"store": self.store, "rows": self.rows, "columns": self.columns}
        return {**size, "kept": self.kept, "group": self.group}

    def mask(self) -> Tensor:
        groups = self.columns // self.group
        places = unpack(self.codes, _place_bits(self.group), groups * self.kept).long()
        mask = torch.zeros(self.rows, groups, self.group, dtype=torch.bool, device=self.codes.device)
        mask.scatter_(2, places.reshape(self.rows, groups, self.kept), True)
        return mask.flatten(1)


class Csr(Places):
    """Compressed sparse rows: the column of every weight that stays, and which is the first of each row.

    indices: (N,) int16, int32 where there are more columns than that can name; pointers: (R + 1,) int32.
    """

    store = "csr"
    indices: Tensor
    pointers: Tensor

    def __init__(self, indices_N: Tensor, pointers: Tensor, columns: int) -> None:
        super().__init__()
        self.rows, self.columns, self.count = len(pointers) - 1, columns, len(indices_N)
        self.register_buffer("indices", indices_N)
        self.register_buffer("pointers", pointers)

    @classmethod
    def of(cls, mask_RC: Tensor, size: Mapping[str, Any]) -> "Csr":
        columns = mask_RC.shape[1]
        pointers = functional.pad(mask_RC.sum(1).cumsum(0), (1, 0)).to(torch.int32)
        return cls(mask_RC.nonzero()[:, 1].to(_index_type(columns)), pointers, columns)

    @classmethod
    def empty(cls, size: Mapping[str, Any]) -> "Csr":
        indices = torch.zeros(size["count"], dtype=_index_type(size["columns"]))
        return cls(indices, torch.zeros(size["rows"] + 1, dtype=torch.int32), size["columns"])

    def mask(self) -> Tensor:
        device = self.indices.device
        rows = torch.arange(self.rows, device=device).repeat_interleave(self.pointers.diff())
        mask = torch.zeros(self.rows, self.columns, dtype=torch.bool, device=device)
        mask[rows, self.indices.long()] = True
        return mask


PLACES: dict[str, type[Places]] = {"bitmap": Bitmap, "n_m": InGroups, "csr": Csr}
"""By the name under which a configuration lists them."""


def empty_places(size: Mapping[str, Any]) -> Places:
    """Return places of the store and size given, their values not set."""
    return PLACES[size["store"]].empty(size)


def places_of(mask_RC: Tensor, size: Mapping[str, Any]) -> Places:
    """Return the places where a mask is true, in the store that a size names."""
    return PLACES[size["store"]].of(mask_RC, size)


def _bit_steps(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


def _place_bits(group: int) -> int:
    return min(bits for bits in UNITS if 2**bits >= group)


def _index_type(columns: int) -> torch.dtype:
    return torch.int16 if columns <= 2**15 else torch.int32
