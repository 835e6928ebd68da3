"""From the knobs of pruning to the number of heads and units that each section keeps.

Letters: P sections, F those of them that are not protected.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.compress.budget import TOLERANCE, Array, Ints, Room, filled, rounded, scaled
from hpo.compress.prune_knobs import PruneKnobs
from hpo.compress.prune_layout import Layout
from hpo.errors import Unsupported


def kept_items(layout: Layout, knobs: PruneKnobs) -> Ints:
    """Return how many items of each section to keep, (P,), so that the layers keep `keep_ratio` of their
    weights together, within half a per cent where the sections' items allow, as a rule from below. A section
    with all its items stays as it is.

    Raises:
        Unsupported: what is protected, cannot be cut or is left in any case holds more than is to be kept, or
            heads are to go one by one where several share keys and values.
    """
    _check_heads(layout, knobs)
    share = _Share.of(layout, knobs)
    found = _room(share)
    if found is None:
        raise _too_little(share)
    room, steps = found
    sizes = scaled(_wanted(share, room) / steps, share.budget, room)
    items = rounded(_with_whole_heads(share, room, sizes), share.budget, room)
    kept = layout.items.copy()
    kept[share.free] = np.minimum(items * steps, kept[share.free])
    return kept


@dataclass(frozen=True)
class _Share:
    """The sections that may be cut, and the weights that they may keep."""

    layout: Layout
    knobs: PruneKnobs
    free: NDArray[np.bool_]
    """Which of the sections, (P,)."""
    fixed: float
    """Weights of all else in the linear layers."""
    budget: float

    @classmethod
    def of(cls, layout: Layout, knobs: PruneKnobs) -> "_Share":
        last = layout.last_block - knobs.protect_last
        free = (layout.blocks >= knobs.protect_first) & (layout.blocks <= last)
        total = float(layout.architecture.linear_parameters)
        fixed = total - float((layout.items * layout.weights)[free].sum())
        biases = float(layout.biases[free].sum()) if knobs.compensate else 0.0
        return cls(layout, knobs, np.asarray(free), fixed, knobs.keep_ratio * total - fixed - biases)

    @property
    def items(self) -> Ints:
        """Shape (F,), as the next."""
        return self.layout.items[self.free]

    @property
    def weights(self) -> Array:
        return self.layout.weights[self.free]

    @property
    def is_heads(self) -> NDArray[np.bool_]:
        return self.layout.is_heads[self.free]

    @property
    def least(self) -> Array:
        """Items that are left in any case."""
        return self.layout.least[self.free]

    @property
    def dense(self) -> Array:
        return self.items * self.weights


def _check_heads(layout: Layout, knobs: PruneKnobs) -> None:
    if knobs.heads == "single" and layout.shared_heads is not None:
        name, queries = layout.shared_heads
        raise Unsupported(
            f"heads=single, but {name} reads heads of which {queries} share a key and a value each "
            "(grouped-query attention): what is left would not be a model of this class",
            "use heads: group, which removes a key-value head with all of its query heads",
        )


def _room(share: _Share) -> tuple[Room, Ints] | None:
    """Return the sizes that free sections may have, in steps, and the items of a step, (F,). None where the
    budget is below what must be left."""
    if not share.free.any():
        return None
    knobs, dense, items = share.knobs, share.dense, share.items
    floor = knobs.floor * share.budget / float(dense.sum())
    multiple = knobs.multiple
    while True:
        steps = np.where(share.is_heads, 1, multiple)
        steps = np.where(steps < items, steps, 1).astype(np.int64)
        caps = np.ceil(items / steps)
        least = np.maximum(np.ceil(share.least / steps), np.floor(floor * items / steps))
        room = Room(steps * share.weights, caps, dense, np.minimum(least, caps))
        spent = float(room.bottoms @ room.costs)
        if spent <= share.budget + TOLERANCE * share.layout.architecture.linear_parameters:
            return room, steps
        if multiple == 1:
            return None
        multiple //= 2


def _with_whole_heads(share: _Share, room: Room, sizes: Array) -> Array:
    """Return sizes, (F,), with whole numbers of heads and units that make up for their rounding, where they
    can: a head is many units."""
    heads, units = share.is_heads, ~share.is_heads
    whole = np.where(heads, np.clip(np.floor(sizes + 0.5), room.whole_bottoms, room.caps), 0.0)
    left = share.budget - float(whole @ room.costs)
    costs, lows, highs = room.costs[units], room.bottoms[units], room.tops[units]
    if not float(lows @ costs) <= left <= float(highs @ costs):
        return sizes
    whole[units] = filled(sizes[units], left, costs, lows, highs)
    return whole


def _too_little(share: _Share) -> Unsupported:
    total = float(share.layout.architecture.linear_parameters)
    left = (share.fixed + float(np.minimum(share.least, share.items) @ share.weights)) / total
    owners = sorted(set(share.layout.owners.values()))
    unknown = f", {', '.join(owners)} cannot be cut" if owners else ""
    return Unsupported(
        f"keep_ratio={share.knobs.keep_ratio:g}, but {left:.3g} of the weights are left in any case "
        f"(one head and a few units of every block, protected blocks{unknown})",
        "keep more, protect fewer blocks, or lower the floor",
    )


def _wanted(share: _Share, room: Room) -> Array:
    """Return the real-valued number of items of the free sections, (F,), before it is fitted to the
    budget."""
    knobs = share.knobs
    weights = np.where(share.is_heads, knobs.attention, knobs.mlp)
    if knobs.structure == "global":
        tolerance = TOLERANCE * share.layout.architecture.linear_parameters
        kept = share.layout.ranking(share.free).kept(share.budget, tolerance)
        return np.asarray(kept * weights, dtype=float)
    return np.asarray(share.budget / float(room.dense.sum()) * share.items * weights, dtype=float)
