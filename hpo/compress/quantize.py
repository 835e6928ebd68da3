"""The stage ``quantize``: what all of its methods share, and rounding to nearest."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import nn

from hpo.compress.encoded_plan import Encoded, encoded
from hpo.compress.grid import Grid
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.materials import Materials
from hpo.compress.mixed_bits import BITS
from hpo.compress.mixed_knobs import TYPICAL_GROUPS, MixedKnobs, typical_group
from hpo.compress.mixed_sensitivity import BitSensitivity
from hpo.compress.packing import pack_layers
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import RoundToNearest
from hpo.errors import Unsupported
from hpo.space import Value


class QuantizeKnobs(Knobs):
    """What every method of the stage has."""

    correction: float = Field(default=0.0, ge=0, le=2)
    """Rank of factors of what the format loses (as EoRA has them), as a share of the layer's break-even rank;
    in the model's own precision, for layers that are one matrix."""

    def rank(self, layer: LayerPlan) -> int:
        """Return the rank of the correction of a layer."""
        if len(layer.matrices) != 1:
            return 0
        rows, columns = layer.matrices[0]
        return min(round(self.correction * rows * columns / (rows + columns)), rows, columns)


class GroupKnobs(QuantizeKnobs):
    """Of methods whose scales are of groups, whatever lies on them."""

    group_size: int = Field(default=64, ge=0, le=4096)
    """Weights of a row that share a scale; 0: all of them."""
    last_group: Literal["refuse", "short"] = "refuse"
    """What becomes of a row that the group size does not divide: it is refused, or its last group is
    shorter, which no kernel takes but the portable one."""


class GridKnobs(MixedKnobs, GroupKnobs):
    """Of methods whose values lie on an evenly spaced grid."""

    symmetric: bool = True
    """Without, each group has an offset beside its scale."""

    @property
    def grid(self) -> Grid:
        return Grid(self.bits, self.group_size, self.symmetric)


class Quantize:
    """Base of the methods: one quantizer for every layer that has matrices to put into few bits."""

    stage: ClassVar[Literal["quantize"]] = "quantize"
    knob_type: ClassVar[type[Knobs]]

    def quantizer(self, knobs: Knobs) -> Quantizer:
        """Return what finds the values."""
        raise NotImplementedError

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        """Nothing is needed to plan; what is worked out for a layer is kept when it is first wanted."""
        return ()

    def plan(self, profile: ModelProfile, knobs: Knobs, layers: Sequence[LayerPlan]) -> tuple[LayerPlan, ...]:
        """Return the layers in few bits; those with no matrix of their own stay as they are.

        Raises:
            Unsupported: no layer has one, or one has a shape that the format cannot hold.
        """
        assert isinstance(knobs, QuantizeKnobs)
        bits = profile.architecture.weight_bits
        if not any(layer.matrices for layer in layers):
            kinds = ", ".join(sorted({layer.kind for layer in layers}))
            raise Unsupported(
                f"no layer has a matrix left to quantise: all are of kind {kinds}",
                "leave the stage out, or choose another method before it",
            )
        found: dict[tuple[int, int], LayerPlan] = {}  # equal layers share a plan
        quantizers, planned = self.quantizers(profile, knobs, layers), []
        for shape, layer, quantizer in zip(profile.shapes, layers, quantizers, strict=True):
            kind = id(layer), id(quantizer)
            if kind not in found:
                self.check(shape.name, layer, knobs)
                rank = knobs.rank(layer)
                found[kind] = encoded(layer, quantizer, rank, weight_bits=bits) if layer.matrices else layer
            planned.append(found[kind])
        return tuple(planned)

    def quantizers(
        self, profile: ModelProfile, knobs: Knobs, layers: Sequence[LayerPlan]
    ) -> tuple[Quantizer, ...]:
        """Return what finds the values of each layer."""
        return (self.quantizer(knobs),) * len(layers)

    def check(self, name: str, layer: LayerPlan, knobs: Knobs) -> None:
        """Refuse a layer whose shape does not go with the knobs.

        Raises:
            Unsupported: naming the layer.
        """
        if not isinstance(knobs, GroupKnobs) or not knobs.group_size or knobs.last_group == "short":
            return
        for _, columns in layer.matrices:
            if columns % knobs.group_size:
                raise Unsupported(
                    f"{name}: groups of {knobs.group_size} do not divide a row of {columns}",
                    "give another group_size (0: whole rows), or last_group: short",
                )

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        pack_layers(model, plan, materials)

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        distinct = {id(layer): layer for layer in layers}  # equal layers share a plan
        found = {key: _noise(layer) for key, layer in distinct.items()}
        return np.array([found[id(layer)] for layer in layers])


def _noise(layer: LayerPlan) -> float:
    """Return about what share of a layer's error its correction leaves."""
    if not isinstance(layer, Encoded):
        return 0.0
    left = 1 - min(layer.rank / max(min(layer.inner.matrices[0]), 1), 1)
    return float(layer.quantizer.noise * left)


class GridQuantize(Quantize):
    """Base of the methods on an evenly spaced grid, which layers may have with different bits."""

    def quantizers(
        self, profile: ModelProfile, knobs: Knobs, layers: Sequence[LayerPlan]
    ) -> tuple[Quantizer, ...]:
        assert isinstance(knobs, GridKnobs)
        if not knobs.is_mixed:
            return super().quantizers(profile, knobs, layers)
        bits = knobs.layer_bits(profile, layers, self.sensitivity(knobs.group_size).name).tolist()
        found = {each: self.quantizer(knobs.model_copy(update={"bits": each})) for each in set(bits)}
        return tuple(found[each] for each in bits)

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        """Return what tells which layers bear fewer bits, where a space may ask for that."""
        if "sensitivity" not in knob_values["allocation"]:
            return ()
        sizes = [size for size in knob_values["group_size"] if isinstance(size, int)]
        return tuple(dict.fromkeys(map(self.sensitivity, sizes or TYPICAL_GROUPS)))

    def sensitivity(self, group_size: int) -> BitSensitivity:
        """Return what is measured for groups of about that size, the method's other knobs at their defaults:
        those change all layers about alike."""
        size = typical_group(group_size)
        every = [self.knob_type.model_validate({"bits": int(bits), "group_size": size}) for bits in BITS]
        return BitSensitivity(tuple(map(self.quantizer, every)))


class RoundNearest(GridQuantize):
    """Every weight to the nearest value of its group's grid: what the others are measured against.

    Source: absmax and min-max grids as surveyed by Nagel et al. 2021, arXiv:2106.08295.
    """

    summary: ClassVar[str] = "every weight to the nearest value of a grid, without data"
    paper: ClassVar[str] = "Nagel et al. 2021, arXiv:2106.08295"
    knob_type: ClassVar[type[Knobs]] = GridKnobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        assert isinstance(knobs, GridKnobs)
        return RoundToNearest(knobs.grid)
