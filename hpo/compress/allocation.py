"""The knobs that spread weights over the layers, and what they come to on a model.

Letters: L layers.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hpo.compress import allocate
from hpo.compress.architecture import Architecture
from hpo.compress.bases import LowRankBasis
from hpo.compress.budget import Array, Ints, Room, rounded, scaled
from hpo.compress.preparation import Preparation
from hpo.compress.profile import ModelProfile
from hpo.compress.sensitivity import BLOCK_INFLUENCE, SHARES, Sensitivity, sensitivity_of
from hpo.compress.shift import ShiftKnobs
from hpo.errors import Unsupported
from hpo.space import Value

Multiplier = Annotated[float, Field(gt=0, le=10)]


RANK_STEP = 1.1
"""What one step of a `shift` multiplies a rank with."""


class AllocationKnobs(ShiftKnobs):
    """Who gets more of the weights that are kept, and who less."""

    allocation: Literal["uniform", "spectral", "sensitivity", "waterfill", "softmax"] = "uniform"
    """With `keep_ratio`: the same share everywhere; the same loss of spectral energy; the least measured
    rise of the loss; by each layer's loss within its type; by how much each block changes its input."""
    floor: float = Field(default=0.5, ge=0, le=1)
    """With `keep_ratio`: no layer below this share of its uniform rank."""
    temperature: float = Field(default=0.1, gt=0, le=100)
    """Of softmax allocation; the higher, the nearer to uniform."""
    attention: Multiplier = 1.0
    """Multiplies the ranks of attention layers before they are fitted to `keep_ratio`."""
    down: Multiplier = 1.0
    """The same for the last matrix of each MLP, often the most sensitive."""
    block_weight: tuple[Multiplier, ...] = ()
    """The same for every layer of a block: one number a block, or none at all."""
    protect_first: int = Field(default=0, ge=0)
    """So many blocks at the beginning stay dense; their weights count as kept."""
    protect_last: int = Field(default=0, ge=0)
    """So many blocks at the end stay dense."""
    rank_multiple: int = Field(default=1, ge=1, le=256)
    """Round ranks to multiples of this, which hardware likes; halved while `keep_ratio` has no room."""


def allocation_preparations(
    basis: LowRankBasis, knob_values: Mapping[str, Sequence[Value]]
) -> tuple[Preparation, ...]:
    """Return what the allocation rules a space may choose need measured, beside the basis itself."""
    rules, found = knob_values["allocation"], list[Preparation]()
    if "sensitivity" in rules:
        found.append(Sensitivity(basis))
    if "softmax" in rules:
        found.append(BLOCK_INFLUENCE)
    return tuple(found)


def budgeted_ranks(profile: ModelProfile, knobs: AllocationKnobs, keep_ratio: float, basis: str) -> Ints:
    """Return a rank for every layer, (L,), that together keep `keep_ratio` of the linear layers' weights.

    A rank at a layer's cap, its break-even rank, means that it stays dense. The ratio is met within half
    a per cent and as a rule from below; with layers so small that one rank is more than that, within
    one rank. A ratio too small for rank 1 everywhere gives rank 1.

    Raises:
        Unsupported: protected blocks alone hold more than is to be kept, or there are not as many
            block weights as blocks, or steps of a shift as layers.
    """
    free = ~protected(profile.architecture, knobs)
    ranks = profile.caps.astype(np.int64)
    dense = (profile.outs * profile.ins).astype(float)
    budget = keep_ratio * profile.architecture.linear_parameters - float(dense[~free].sum())
    if not free.any() or budget <= 0:
        held = float(dense[~free].sum()) / profile.architecture.linear_parameters
        raise Unsupported(
            f"keep_ratio={keep_ratio:g}, but the protected blocks alone hold {held:.3g} of the weights",
            "protect fewer blocks, or keep more",
        )
    share = budget / float(dense[free].sum())
    room = _room(profile, knobs, free, share)
    wanted = _wanted(profile, knobs, basis, free, share, room)
    ranks[free] = rounded(scaled(wanted, budget, room), budget, room)
    return ranks


def protected(architecture: Architecture, knobs: AllocationKnobs) -> NDArray[np.bool_]:
    """Return which layers stay dense because of their place, (L,)."""
    _, order = np.unique([layer.block for layer in architecture.layers], return_inverse=True)
    last = int(order.max())
    return np.asarray((order < knobs.protect_first) | (order > last - knobs.protect_last))


def multipliers(architecture: Architecture, knobs: AllocationKnobs) -> Array:
    """Return what each layer's rank is multiplied with, (L,).

    Raises:
        Unsupported: there are not as many block weights as blocks, or steps of a shift as layers.
    """
    layers = architecture.layers
    weights = RANK_STEP ** knobs.steps(len(layers)).astype(float)
    weights[[layer.group == "attention" for layer in layers]] *= knobs.attention
    weights[np.array(architecture.is_down)] *= knobs.down
    if knobs.block_weight:
        numbers, order = np.unique([layer.block for layer in layers], return_inverse=True)
        if len(knobs.block_weight) != len(numbers):
            raise Unsupported(
                f"{len(knobs.block_weight)} block weights for {len(numbers)} blocks",
                "give block_weight once for each block (each: block), or not at all",
            )
        weights *= np.array(knobs.block_weight)[order]
    return weights


def _room(profile: ModelProfile, knobs: AllocationKnobs, free: NDArray[np.bool_], share: float) -> Room:
    """Return the ranks that free layers may have when they keep a share of their weights together."""
    outs, ins, caps = profile.outs[free], profile.ins[free], profile.caps[free]
    costs, dense = (outs + ins).astype(float), (outs * ins).astype(float)
    least = np.clip(knobs.floor * allocate.uniform_ranks(share, outs, ins), 1, np.maximum(caps - 1, 1))
    multiple = knobs.rank_multiple
    while True:
        room = Room(costs, caps, dense, least, multiple)
        if multiple == 1 or float(room.bottoms @ costs) <= share * float(dense.sum()):
            return room
        multiple //= 2


def _wanted(
    profile: ModelProfile,
    knobs: AllocationKnobs,
    basis: str,
    free: NDArray[np.bool_],
    share: float,
    room: Room,
) -> Array:
    """Return the real-valued ranks of the free layers, before they are fitted to the budget."""
    budget = share * float(room.dense.sum())
    weights = multipliers(profile.architecture, knobs)[free]
    if knobs.allocation == "spectral":
        return allocate.spectral_ranks(budget, profile.rank_table(basis)[:, free], room, weights)
    if knobs.allocation == "sensitivity":
        rises = np.stack(profile.spectra(sensitivity_of(basis)))[free]
        return allocate.sensitivity_ranks(budget, np.array(SHARES), rises, room) * weights
    uniform = share * room.tops
    if knobs.allocation == "waterfill":
        ranks = np.zeros(len(free), dtype=np.int64)
        ranks[free] = np.round(uniform)
        losses = np.sqrt(profile.lost(basis, ranks) * profile.energies(basis))[free]
        return allocate.waterfill_ranks(share, losses, profile.type_index[free], room) * weights
    if knobs.allocation == "softmax":
        influences = profile.prepared(BLOCK_INFLUENCE.name)["influence"]
        _, order = np.unique([layer.block for layer in profile.architecture.layers], return_inverse=True)
        blocks, order = np.unique(order[free], return_inverse=True)
        return allocate.softmax_ranks(share, influences[blocks], order, knobs.temperature, room) * weights
    return uniform * weights
