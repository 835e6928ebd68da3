"""The knobs that give layers different numbers of bits, and what they come to on a model.

Letters: L layers.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from hpo.compress.budget import TOLERANCE, Array, Ints
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.mixed_bits import BITS, allotted, moved
from hpo.compress.profile import ModelProfile
from hpo.compress.shift import ShiftKnobs
from hpo.errors import Unsupported

Bits = Literal[2, 3, 4, 8]

TYPICAL_GROUPS = (0, 32, 64, 128)
"""Group sizes for which it is measured what layers bear; 0 stands for whole rows."""


def typical_group(size: int) -> int:
    """Return the typical group size that comes nearest, by their ratio; whole rows are their own kind."""
    return min((x for x in TYPICAL_GROUPS if x), key=lambda x: max(x / size, size / x)) if size else 0


class MixedKnobs(ShiftKnobs):
    """Bits of a code: the same everywhere, by kind of layer, or by what each layer can bear."""

    bits: Bits = 4
    attention_bits: Bits | None = None
    """Of attention layers; None: as `allocation` has it."""
    mlp_bits: Bits | None = None
    """The same for layers of MLPs."""
    down_bits: Bits | None = None
    """The same for the last matrix of each MLP, often the most sensitive; None: as the others of the MLP."""
    allocation: Literal["uniform", "sensitivity"] = "uniform"
    """Bits of layers of no kind named above: `bits` each, or whatever together moves the model's predictions
    least, as measured layer by layer on calibration text."""
    mean_bits: float | None = Field(default=None, ge=2, le=8)
    """With `allocation: sensitivity`: bits of a code in the mean over all weights, scales not counted, met
    within half a per cent where the layers are small enough. None: `bits`."""

    @model_validator(mode="after")
    def _mean_needs_a_choice(self) -> Self:
        if self.mean_bits is not None and self.allocation == "uniform":
            raise ValueError("mean_bits is for allocation: sensitivity")
        return self

    @property
    def is_mixed(self) -> bool:
        """Whether layers may have different bits."""
        kinds = (self.attention_bits, self.mlp_bits, self.down_bits)
        named = any(bits is not None for bits in kinds)
        return self.allocation != "uniform" or named or self.is_shifted

    def layer_bits(self, profile: ModelProfile, layers: Sequence[LayerPlan], sensitivity: str) -> Ints:
        """Return the bits of every layer, (L,). `sensitivity` names the preparation that holds them.

        Layers that are not dense any more are judged by what the dense ones bear.

        Raises:
            Unsupported: the kinds with bits of their own put the mean out of reach, or there are not as many
                steps of a shift as layers.
        """
        return moved(self._ruled(profile, layers, sensitivity), self.steps(len(layers)))

    def _ruled(self, profile: ModelProfile, layers: Sequence[LayerPlan], sensitivity: str) -> Ints:
        """Return the bits of every layer without the shift, (L,)."""
        bits = self._by_kind(profile)
        if self.allocation == "uniform":
            return np.where(bits == 0, self.bits, bits)
        distinct = {id(layer): layer for layer in layers}  # equal layers share a plan
        sizes = {key: sum(rows * columns for rows, columns in x.matrices) for key, x in distinct.items()}
        weights = np.array([sizes[id(layer)] for layer in layers], dtype=float)
        free = (bits == 0) & (weights > 0)
        if free.any():
            budget, slack = self._budget(bits, weights, free)
            bits[free] = allotted(budget, slack, weights[free], profile.table(sensitivity)[free])
        return np.where(bits == 0, self.bits, bits)

    def _by_kind(self, profile: ModelProfile) -> Ints:
        """Return the bits of layers of kinds that have their own, 0 for the others, (L,)."""
        others = self.mlp_bits or 0
        bits = np.where(profile.is_attention, self.attention_bits or 0, others).astype(np.int64)
        if self.down_bits is not None:
            bits[np.array(profile.architecture.is_down)] = self.down_bits
        return bits

    def _budget(
        self, bits_L: Ints, weights_L: Array, free_L: np.typing.NDArray[np.bool_]
    ) -> tuple[float, float]:
        """Return the bits that free layers may have together, and by how much that may be missed."""
        mean = self.bits if self.mean_bits is None else self.mean_bits
        total, room = mean * float(weights_L.sum()), float(weights_L[free_L].sum())
        budget = total - float((bits_L * weights_L)[~free_L].sum())
        slack = TOLERANCE * total
        if not BITS[0] * room - slack <= budget <= BITS[-1] * room + slack:
            raise Unsupported(
                f"mean_bits={mean:g}, but with the bits of attention, MLP or down layers as given the others "
                f"would need {budget / room:.3g} bits",
                f"allowed: {BITS[0]} to {BITS[-1]}; leave one of attention_bits, mlp_bits, down_bits out",
            )
        return budget, slack
