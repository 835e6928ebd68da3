"""The heads of an attention or the units of an MLP, in order of importance; and those of a whole model.

Needs no torch. Letters: F sections, N items of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.compress.architecture import SMALLEST_SIDE
from hpo.compress.profile import Array
from hpo.compress.prune_plan import Part

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Section:
    """The heads of one attention, or the units of one MLP."""

    path: str
    """Of the module that holds its layers."""
    part: Part
    block: int
    importances: Array
    """Falling; one an item."""
    levels: Array
    """What items of different sections are compared by, in the same order."""
    weights: int
    """Of all layers and their biases, for one item."""
    bias: int
    """Of the layer that reads the items, where it comes with compensation."""

    @property
    def key(self) -> str:
        return f"{self.path}@{self.part}"

    @property
    def items(self) -> int:
        return len(self.importances)

    @property
    def least(self) -> int:
        """Items that are left in any case: a head group, or as many units as make a layer."""
        return 1 if self.part == "heads" else min(SMALLEST_SIDE, self.items)

    @cached_property
    def damage(self) -> Array:
        """Root of the share of importance that goes when the first 0, 1, ... items are kept, (items + 1,)."""
        total = float(self.importances.sum())
        if total <= 0:
            return np.zeros(self.items + 1)
        kept = np.concatenate([[0.0], np.cumsum(self.importances)]) / total
        return np.sqrt(np.clip(1.0 - kept, 0.0, 1.0))


def falling(importances: NDArray[Any]) -> Ints:
    """Return the numbers of the items, the most important first; equal ones as they stand."""
    return np.argsort(-np.asarray(importances), kind="stable")


class Ranking:
    """Items of several sections in one order, those first that are left in any case, then by level."""

    def __init__(self, sections: Sequence[Section]) -> None:
        levels = np.concatenate([_first_of_all(section) for section in sections])
        owner_N = np.repeat(np.arange(len(sections)), [section.items for section in sections])
        order = np.argsort(-levels, kind="stable")  # equal ones by section, and there by importance
        owner_N = owner_N[order]
        self._is_heads = np.array([section.part == "heads" for section in sections], dtype=bool)
        is_heads_N = self._is_heads[owner_N]
        weights_N = np.array([section.weights for section in sections], dtype=float)[owner_N]
        self._spent_N = np.cumsum(weights_N)
        self._heads, self._units = np.flatnonzero(is_heads_N), np.flatnonzero(~is_heads_N)
        self._spent_heads, self._spent_units = (
            np.concatenate([[0.0], np.cumsum(weights_N[places])]) for places in (self._heads, self._units)
        )
        self._least_units = sum(section.least for section in sections if section.part == "units")
        self._places = [np.flatnonzero(owner_N == number) for number in range(len(sections))]

    def kept(self, budget: float, tolerance: float) -> Ints:
        """Return how many items of each section to keep, (F,), so that they cost at most `budget`.

        The first in order, as far as they go; then such units as fit into what is left, where a head, which
        costs more, does not. Where more than `tolerance` is left even so, the next head takes the place of
        the last units.
        """
        count = int(np.searchsorted(self._spent_N, budget, side="right"))
        heads = int(np.searchsorted(self._heads, count))
        units, left = self._units_for(heads, budget)
        if left > tolerance and heads < len(self._heads):
            more_units, less = self._units_for(heads + 1, budget)
            if 0 <= less < left and more_units >= self._least_units:
                heads, units = heads + 1, more_units
        ends = np.where(self._is_heads, _end(self._heads, heads), _end(self._units, units))
        return np.array(
            [places.searchsorted(end) for places, end in zip(self._places, ends, strict=True)], dtype=np.int64
        )

    def _units_for(self, heads: int, budget: float) -> tuple[int, float]:
        """Return how many units fit beside so many heads, and what of the budget is left."""
        left = budget - float(self._spent_heads[heads])
        units = int(np.searchsorted(self._spent_units, left, side="right")) - 1
        return units, left - float(self._spent_units[max(units, 0)])


def _end(places: Ints, count: int) -> int:
    """Return the place in the order behind the first so many."""
    return int(places[count - 1]) + 1 if count > 0 else 0


def _first_of_all(section: Section) -> Array:
    levels = section.levels.copy()
    levels[: section.least] = np.inf
    return levels
