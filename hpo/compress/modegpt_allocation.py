"""From the knobs of MoDeGPT to the size of every section.

Letters: P sections, F those of them that are not protected.
"""

import numpy as np
from numpy.typing import NDArray

from hpo.compress import allocate
from hpo.compress.budget import TOLERANCE, Array, Ints, Room, rounded, scaled
from hpo.compress.modegpt_knobs import ModegptKnobs
from hpo.compress.modegpt_layout import Layout
from hpo.compress.modegpt_sensitivity import SHARES, sensitivity_of
from hpo.compress.profile import ModelProfile
from hpo.compress.sensitivity import BLOCK_INFLUENCE
from hpo.errors import Unsupported


def kept_units(profile: ModelProfile, layout: Layout, knobs: ModegptKnobs, basis: str) -> Ints:
    """Return how many units of each section to keep, (P,), so that the layers keep `keep_ratio` of their
    weights together, within half a per cent where the sections' steps allow, as a rule from below. A section
    with all its units stays as it is.

    Raises:
        Unsupported: what is protected or cannot be cut holds more than is to be kept, or there are not as
            many block weights as blocks.
    """
    free = _free(layout, knobs)
    kept = layout.units.astype(np.int64)
    total = float(layout.architecture.linear_parameters)
    fixed = total - float((layout.units * layout.weights)[free].sum())
    budget = knobs.keep_ratio * total - fixed
    room, steps = _room(layout, knobs, free, budget)
    if room is None:
        left = "; ".join(sorted({f"{owner} is not known" for owner in layout.owners.values()}))
        raise Unsupported(
            f"keep_ratio={knobs.keep_ratio:g}, but {fixed / total:.3g} of the weights cannot be cut"
            + (f" ({left})" if left else ""),
            "protect fewer blocks, or keep more",
        )
    wanted = _wanted(profile, layout, knobs, basis, free, budget, room)
    ranks = rounded(scaled(wanted, budget, room), budget, room)
    kept[free] = np.minimum(ranks * steps, kept[free])
    return kept


def _free(layout: Layout, knobs: ModegptKnobs) -> NDArray[np.bool_]:
    """Return which sections may be cut, (P,)."""
    last = layout.architecture.blocks - 1
    return np.asarray((layout.blocks >= knobs.protect_first) & (layout.blocks <= last - knobs.protect_last))


def _room(
    layout: Layout, knobs: ModegptKnobs, free: NDArray[np.bool_], budget: float
) -> tuple[Room | None, Ints]:
    """Return the sizes that free sections may have, in steps, and the units of a step, (F,). No room where
    the budget is below a single step everywhere."""
    units, weights = layout.units[free], layout.weights[free]
    dense = units * weights
    is_mlp, dims = layout.is_part("mlp")[free], layout.dims[free]
    multiple, head_multiple = knobs.multiple, knobs.head_multiple
    while len(dense):
        steps = np.where(is_mlp, multiple, np.maximum(head_multiple // dims, 1))
        steps = np.where(steps < units, steps, 1).astype(np.int64)
        caps = np.ceil(units / steps)
        share = budget / float(dense.sum())
        least = np.clip(knobs.floor * share * units / steps, 1, np.maximum(caps - 1, 1))
        room = Room(steps * weights, caps, dense, least)
        if float(room.bottoms @ room.costs) <= budget + TOLERANCE * layout.architecture.linear_parameters:
            return room, steps
        if multiple == head_multiple == 1:
            break
        multiple, head_multiple = max(multiple // 2, 1), max(head_multiple // 2, 1)
    return None, np.ones(0, dtype=np.int64)


def _wanted(
    profile: ModelProfile,
    layout: Layout,
    knobs: ModegptKnobs,
    basis: str,
    free: NDArray[np.bool_],
    budget: float,
    room: Room,
) -> Array:
    """Return the real-valued sizes of the free sections, in steps, before they are fitted to the budget."""
    weights = _multipliers(layout, knobs)[free]
    if knobs.allocation == "sensitivity":
        measured = profile.prepared(sensitivity_of(basis))
        rises = np.stack([measured[section.key] for section in layout.sections])[free]
        return allocate.sensitivity_ranks(budget, np.array(SHARES), rises, room) * weights
    share = budget / float(room.dense.sum())
    if knobs.allocation == "softmax":
        influences = profile.prepared(BLOCK_INFLUENCE.name)["influence"]
        blocks, order = np.unique(layout.blocks[free], return_inverse=True)
        return allocate.softmax_ranks(share, influences[blocks], order, knobs.temperature, room) * weights
    return share * room.tops * weights


def _multipliers(layout: Layout, knobs: ModegptKnobs) -> Array:
    """Return what each section's size is multiplied with, (P,)."""
    weights = np.ones(len(layout.sections))
    weights[layout.is_part("query_key")] *= knobs.query_key
    weights[layout.is_part("value")] *= knobs.value
    if knobs.block_weight:
        if len(knobs.block_weight) != layout.architecture.blocks:
            raise Unsupported(
                f"{len(knobs.block_weight)} block weights for {layout.architecture.blocks} blocks",
                "give block_weight once for each block (each: block), or not at all",
            )
        weights *= np.array(knobs.block_weight)[layout.blocks]
    return weights
