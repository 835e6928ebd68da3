"""Plans of embeddings held as tensor trains. Letters: V vocabulary, D width."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Literal

import numpy as np

from hpo.compress.allocate import Array
from hpo.compress.layer_plan import Costs
from hpo.compress.mpo_plan import bond_caps
from hpo.compress.mpo_sites import balanced_sites
from hpo.errors import Unsupported

Contraction = Literal["chain", "rebuild", "cached"]
"""How an output layer computes: core by core, by rebuilding its table each call, or from one kept in memory.
The embedding multiplies the slices of its cores, or reads the table that is kept."""


@dataclass(frozen=True)
class TtTable:
    """A table of `vocabulary` rows as a tensor train: cores (bond, row site, column site, next bond).

    Column sites multiply to the width, row sites to the vocabulary or a little more; the rows beyond it are
    padding, zero in what is factorised, and never looked up.

    Raises:
        Unsupported: the row sites hold fewer rows than the vocabulary, or a bond is below 1 or above what
            its cut can carry between its neighbours.
    """

    vocabulary: int
    row_sites: tuple[int, ...]
    column_sites: tuple[int, ...]
    bonds: tuple[int, ...]

    def __post_init__(self) -> None:
        if prod(self.row_sites) < self.vocabulary:
            raise Unsupported(
                f"row sites {self.row_sites} for {self.vocabulary} tokens", "their product must be as large"
            )
        for k, cap in enumerate(self._caps()):
            if not 1 <= self.bonds[k] <= cap:
                sites = f"{self.row_sites} x {self.column_sites}"
                raise Unsupported(f"bond dimension {self.bonds[k]} on sites {sites}", f"allowed: 1 to {cap}")

    def _caps(self) -> list[int]:
        """Return what each cut can carry, given the bonds beside it."""
        edges = (1, *self.bonds, 1)
        pairs = [row * column for row, column in zip(self.row_sites, self.column_sites, strict=True)]
        return [
            min(cap, edges[k] * pairs[k], pairs[k + 1] * edges[k + 2])
            for k, cap in enumerate(bond_caps(self.row_sites, self.column_sites))
        ]

    @property
    def width(self) -> int:
        return prod(self.column_sites)

    @property
    def dense(self) -> int:
        """Weights of the table itself."""
        return self.vocabulary * self.width

    @property
    def links(self) -> tuple[tuple[int, int, int, int], ...]:
        """Shapes of the cores."""
        edges = pairwise((1, *self.bonds, 1))
        return tuple(
            (left, row, column, right)
            for (left, right), row, column in zip(edges, self.row_sites, self.column_sites, strict=True)
        )

    @property
    def parameters(self) -> int:
        return sum(prod(link) for link in self.links)

    @property
    def lookup_macs(self) -> int:
        """Multiply-accumulates for the row of one token: its slices of the cores, left to right."""
        done, total = self.column_sites[0], 0
        for left, _, column, right in self.links[1:]:
            total += done * left * column * right
            done *= column
        return total

    @property
    def chain_macs(self) -> int:
        """Multiply-accumulates for the products of all rows with one hidden state, core by core."""
        rows_done, columns_left, total = 1, self.width, 0
        for left, row, column, right in self.links:
            columns_left //= column
            total += rows_done * left * column * row * right * columns_left
            rows_done *= row
        return total

    @property
    def rebuild_macs(self) -> int:
        """Multiply-accumulates for the whole table, padding included."""
        done, total = self.row_sites[0] * self.column_sites[0], 0
        for left, row, column, right in self.links[1:]:
            total += done * left * row * column * right
            done *= row * column
        return total

    @property
    def key(self) -> str:
        return f"{self.row_sites}{self.column_sites}{self.bonds}".replace(" ", "")

    def __str__(self) -> str:
        rows, columns = "x".join(map(str, self.row_sites)), "x".join(map(str, self.column_sites))
        return f"bonds {', '.join(map(str, self.bonds))} on {rows} by {columns}"


@dataclass(frozen=True)
class TtEmbedding:
    """The embedding as a tensor train, and what becomes of the output layer."""

    table: TtTable
    tied: bool
    """Whether the output layer has the same matrix; then it has the same cores."""
    head: TtTable | None = None
    """Cores of an output layer with a matrix of its own; None leaves that one dense."""
    is_weighted: bool = False
    """Whether tokens stand by falling frequency and count by it. The order is kept, in 4 bytes a token."""
    contraction: Contraction = "rebuild"
    costs: Costs = field(init=False, compare=False, repr=False)
    kind = "tt_embedding"

    def __post_init__(self) -> None:
        if self.tied and self.head is not None:
            raise Unsupported(
                "cores for an output layer that is tied", "leave them out: it has the embedding's"
            )
        is_cached, is_chained = self.contraction == "cached", self.contraction == "chain"
        parameters = sum(table.parameters for table in self._tables)
        of_head = self.table if self.tied else self.head
        lookup = 0 if is_cached else self.table.lookup_macs
        product = of_head.chain_macs if of_head and is_chained else self.dense_macs_per_token
        own = f" and {self.head} for the output layer" if self.head else ""
        costs = Costs(
            key=f"t{','.join(table.key for table in self._tables)}"
            f"{'f' if self.is_weighted else ''}{self.contraction}",
            size=f"{self.table}{own}",
            parameters=parameters,
            resident=parameters + (sum(table.dense for table in self._tables) if is_cached else 0),
            macs_per_token=lookup + product,
            macs_per_call=of_head.rebuild_macs if of_head and self.contraction == "rebuild" else 0,
            packed_bytes=4 * sum(table.vocabulary for table in self._tables) if self.is_weighted else 0,
        )
        object.__setattr__(self, "costs", costs)

    @property
    def _tables(self) -> tuple[TtTable, ...]:
        return (self.table,) if self.head is None else (self.table, self.head)

    @property
    def dense_parameters(self) -> int:
        return sum(table.dense for table in self._tables)

    @property
    def dense_macs_per_token(self) -> int:
        """Of the output layer, if it is replaced: the product with the rebuilt table costs the same."""
        return self.table.dense if self.tied or self.head is not None else 0


@lru_cache(maxsize=256)
def row_sites(vocabulary: int, sites: int) -> tuple[int, ...]:
    """Factor a vocabulary, ascending, after padding it to the least product of factors that are near equal.

    Vocabularies may have large prime factors (GPT-2's is 29 x 1733), which make useless sites. Factors are
    taken from half to twice the even ones; of those with the least padding, the most even.
    """
    if sites == 1:
        return (vocabulary,)
    even = vocabulary ** (1 / sites)
    found = []
    for first in range(max(int(even / 2), 1), int(even) + 2):
        rest = row_sites(-(-vocabulary // first), sites - 1)
        if max(rest) <= 2 * even + 1:
            found.append(tuple(sorted((first, *rest))))
    return min(found, key=lambda factors: (prod(factors), factors[-1] - factors[0]))


def with_bond(vocabulary: int, width: int, sites: int, bond_dimension: int) -> TtTable:
    """Return a table with bonds of that dimension, clipped at each cut to what it can carry."""
    rows, columns = row_sites(vocabulary, sites), balanced_sites(width, sites)
    return TtTable(
        vocabulary, rows, columns, tuple(min(bond_dimension, cap) for cap in bond_caps(rows, columns))
    )


def largest_bond(vocabulary: int, width: int, sites: int) -> int:
    """Return the largest bond dimension that is of use to a plan, at least 1.

    With 2 sites the largest whose cores are smaller than the table. With 3 there is no such limit: one bond
    may be as large as it can if the other is small, and all cores at their largest hold little more than
    the table.
    """
    rows, columns = row_sites(vocabulary, sites), balanced_sites(width, sites)
    if sites == 2:
        each = rows[0] * columns[0] + rows[1] * columns[1]
        return min(max((vocabulary * width - 1) // each, 1), *bond_caps(rows, columns))
    return max(bond_caps(rows, columns))


def within(budget: float, vocabulary: int, width: int, tails: Sequence[Array]) -> TtTable:
    """Return the table of at most `budget` weights that loses the least by the spectra at its cuts.

    `tails` holds, for each cut, the share of energy lost at bonds 0, 1, ...; their sum bounds the loss
    (Oseledets 2011). Two or three sites.

    Raises:
        Unsupported: not even bonds of 1 fit.
    """
    sites = len(tails) + 1
    least = with_bond(vocabulary, width, sites, 1)
    first, *middle, last = least.links
    ends = first[1] * first[2], last[1] * last[2]
    caps = [
        min(cap, len(tail) - 1, largest_bond(vocabulary, width, sites))
        for cap, tail in zip(bond_caps(least.row_sites, least.column_sites), tails, strict=True)
    ]
    if budget < least.parameters:
        raise Unsupported(
            f"{budget:.0f} weights for an embedding of {vocabulary} x {width} on {sites} sites",
            f"its cores need {least.parameters} at least",
        )
    if not middle:
        bonds: tuple[int, ...] = (min(int(budget / sum(ends)), caps[0]),)
    else:
        lefts, pair = np.arange(1, caps[0] + 1), middle[0][1] * middle[0][2]
        rights = (budget - lefts * ends[0]) // (lefts * pair + ends[1])
        rights = np.clip(rights, 0, np.minimum(caps[1], lefts * pair)).astype(int)
        lost = np.where(lefts <= rights * pair, tails[0][lefts] + tails[1][rights], np.inf)
        best = int(lost.argmin())
        bonds = (int(lefts[best]), int(rights[best]))
    return TtTable(vocabulary, least.row_sites, least.column_sites, bonds)
