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


class GridKnobs(QuantizeKnobs):
    """Of methods whose values lie on an evenly spaced grid."""

    bits: Literal[2, 3, 4, 8] = 4
    group_size: int = Field(default=64, ge=0, le=4096)
    """Weights of a row that share a scale; 0: all of them."""
    symmetric: bool = True
    """Without, each group has an offset beside its scale."""
    last_group: Literal["refuse", "short"] = "refuse"
    """What becomes of a row that the group size does not divide: it is refused, or its last group is
    shorter, which no kernel takes but the portable one."""

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
        quantizer, bits = self.quantizer(knobs), profile.architecture.weight_bits
        if not any(layer.matrices for layer in layers):
            kinds = ", ".join(sorted({layer.kind for layer in layers}))
            raise Unsupported(
                f"no layer has a matrix left to quantise: all are of kind {kinds}",
                "leave the stage out, or choose another method before it",
            )
        for shape, layer in zip(profile.shapes, layers, strict=True):
            self.check(shape.name, layer, knobs)
        return tuple(
            encoded(layer, quantizer, knobs.rank(layer), weight_bits=bits) if layer.matrices else layer
            for layer in layers
        )

    def check(self, name: str, layer: LayerPlan, knobs: Knobs) -> None:
        """Refuse a layer whose shape does not go with the knobs.

        Raises:
            Unsupported: naming the layer.
        """
        if not isinstance(knobs, GridKnobs) or not knobs.group_size or knobs.last_group == "short":
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
        return np.array(
            [
                layer.quantizer.noise * (1 - min(layer.rank / max(min(layer.inner.matrices[0]), 1), 1))
                if isinstance(layer, Encoded)
                else 0.0
                for layer in layers
            ]
        )


class RoundNearest(Quantize):
    """Every weight to the nearest value of its group's grid: what the others are measured against.

    Source: absmax and min-max grids as surveyed by Nagel et al. 2021, arXiv:2106.08295.
    """

    summary: ClassVar[str] = "every weight to the nearest value of a grid, without data"
    paper: ClassVar[str] = "Nagel et al. 2021, arXiv:2106.08295"
    knob_type: ClassVar[type[Knobs]] = GridKnobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        assert isinstance(knobs, GridKnobs)
        return RoundToNearest(knobs.grid)
