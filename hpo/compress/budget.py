"""Spend a budget of weights on ranks, exactly. Plain functions on arrays.

Letters: L layers. A rank is real-valued until `rounded`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpo.errors import Unsupported

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

TOLERANCE = 0.005
"""Share of the dense weights by which a plan may miss its budget, where the steps of the layers allow."""


@dataclass(frozen=True)
class Room:
    """The ranks that each layer may have: multiples of a step below its cap, and the cap. Arrays are (L,).

    Raises:
        Unsupported: the arrays do not fit together.
    """

    costs: Array
    """Weights a rank."""
    caps: Array
    """The highest rank; it means that the layer stays dense."""
    dense: Array
    """Weights of the dense layer."""
    least: Array
    """The least rank, at least 1; a layer whose least rank is its cap stays dense."""
    multiple: int = 1
    """Ranks are multiples of it, except in layers whose cap is no larger."""

    def __post_init__(self) -> None:
        shapes = [array.shape for array in (self.costs, self.caps, self.dense, self.least)]
        if len(set(shapes)) != 1:
            raise Unsupported(f"costs, caps, dense and least have shapes {shapes}", "give one number a layer")
        if not ((self.least >= 1) & (self.least <= self.caps)).all():
            raise Unsupported("a least rank is below 1 or above its cap", "clip it")

    @cached_property
    def steps(self) -> Array:
        return np.where(self.caps > self.multiple, float(self.multiple), 1.0)

    @cached_property
    def tops(self) -> Array:
        """The real-valued rank that costs as much as the dense layer; the cap lies just below."""
        return np.asarray(self.dense / self.costs)

    @cached_property
    def bottoms(self) -> Array:
        """The real-valued least rank."""
        return np.where(self.least >= self.caps, self.tops, np.maximum(self.least, self.steps))

    @cached_property
    def whole_bottoms(self) -> Array:
        """The least rank that `rounded` gives: least rounded down to a multiple."""
        stepped = np.maximum(np.floor(self.bottoms / self.steps) * self.steps, self.steps)
        return np.where(self.least >= self.caps, self.caps, np.minimum(stepped, self._below_caps))

    @cached_property
    def _below_caps(self) -> Array:
        return np.maximum(np.ceil(self.caps / self.steps - 1) * self.steps, np.minimum(self.steps, self.caps))

    def weights(self, ranks_L: Array) -> Array:
        """Return the weights that whole ranks cost, (L,)."""
        return np.where(ranks_L >= self.caps, self.dense, ranks_L * self.costs)

    def below(self, ranks_L: Array) -> Array:
        """Return the highest allowed rank that is not above a real-valued one, or else the lowest."""
        stepped = np.minimum(np.floor(ranks_L / self.steps + 1e-9) * self.steps, self._below_caps)
        whole = np.where(ranks_L >= self.tops * (1 - 1e-12), self.caps, stepped)
        return np.maximum(whole, self.whole_bottoms)

    def above(self, ranks_L: Array) -> Array:
        """Return the next rank up of every layer; the cap from there."""
        raised = ranks_L + self.steps
        return np.where(raised < self.caps, raised, self.caps)

    def under(self, ranks_L: Array) -> Array:
        """Return the next rank down of every layer; the lowest from there."""
        lowered = np.where(ranks_L >= self.caps, self._below_caps, ranks_L - self.steps)
        return np.maximum(lowered, self.whole_bottoms)


def scaled(wanted_L: Array, budget: float, room: Room) -> Array:
    """Multiply real-valued ranks by the one factor with which, kept in their room, they cost `budget`.

    A budget below what the least ranks cost gives those, one above all gives the tops.
    """
    return filled(wanted_L, budget, room.costs, room.bottoms, room.tops)


def filled(wanted_L: Array, budget: float, costs_L: Array, lows_L: Array, highs_L: Array) -> Array:
    """Multiply amounts by the one factor with which, clipped to [low, high], they cost `budget`.

    What they cost rises in straight pieces with the factor, which bend where an amount leaves its low
    end or reaches its high one, so one pass over the bends finds the factor.
    """
    wanted = np.maximum(wanted_L, 1e-9)
    bends = np.concatenate([lows_L / wanted, highs_L / wanted])
    turns = np.concatenate([wanted * costs_L, -wanted * costs_L])
    order = np.argsort(bends, kind="stable")
    bends, slopes = bends[order], np.cumsum(turns[order])[:-1].clip(min=0)
    spent = np.concatenate([[0.0], np.cumsum(slopes * np.diff(bends))]) + float(lows_L @ costs_L)
    factor = float(np.interp(budget, spent, bends))
    return np.asarray(np.clip(wanted * factor, lows_L, highs_L))


def rounded(ranks_L: Array, budget: float, room: Room) -> Ints:
    """Round real-valued ranks to allowed ones that cost as near below `budget` as may be.

    Every rank is rounded down, then the largest fractions are rounded up while they fit, then what is
    left goes to whoever can use it: less remains than the cheapest further step costs. Where that is
    more than `TOLERANCE` of the dense weights, one layer may give a step for another's, and the budget
    be passed by as little. Only the steps of layers so small, caps and least ranks can make a plan miss
    its budget by more. Least ranks hold up to their rounding to the multiple.
    """
    ranks = room.below(ranks_L)
    left = budget - float(room.weights(ranks).sum())
    above = room.above(ranks)
    prices = (room.weights(above) - room.weights(ranks)).tolist()
    fractions = (ranks_L - ranks) / room.steps
    for layer in np.argsort(-fractions, kind="stable").tolist():
        if 0 < prices[layer] <= left and fractions[layer] > 0:
            ranks[layer] = above[layer]
            left -= prices[layer]
    ranks, left = _spent(ranks, left, room)
    if left > TOLERANCE * float(room.dense.sum()):
        ranks = _nudged(ranks, left, room)
    return np.asarray(ranks, dtype=np.int64)


def _spent(ranks_L: Array, left: float, room: Room) -> tuple[Array, float]:
    """Step layers up, the relatively smallest first, until no step fits into what is left."""
    ranks = ranks_L.copy()
    while True:
        above = room.above(ranks)
        prices = room.weights(above) - room.weights(ranks)
        fits = (prices > 0) & (prices <= left)
        if not fits.any():
            return ranks, left
        layer = int(np.argmin(np.where(fits, ranks / room.tops, np.inf)))
        ranks[layer] = above[layer]
        left -= float(prices[layer])


def _nudged(ranks_L: Array, left: float, room: Room) -> Array:
    """Step one layer up, and perhaps another down, where that comes nearer to the budget."""
    above, under, weights = room.above(ranks_L), room.under(ranks_L), room.weights(ranks_L)
    ups, downs = room.weights(above) - weights, np.append(room.weights(under) - weights, 0.0)
    nets = ups[:, None] + downs[None, :]  # the last column: no other layer steps down
    np.fill_diagonal(nets, np.inf)
    nets[(ups <= 0)[:, None] | (nets > left + TOLERANCE * float(room.dense.sum()))] = np.inf
    misses = np.abs(left - nets)
    up, down = np.unravel_index(int(np.argmin(misses)), misses.shape)
    ranks = ranks_L.copy()
    if misses[up, down] < left:
        ranks[up] = above[up]
        if down < len(ranks):
            ranks[down] = under[down]
    return ranks
