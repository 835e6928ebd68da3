"""What of a model can be cut, as plans see it, and how much of each part is kept. Needs no torch.

Letters: L layers, P parts that are cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpo.compress.allocate import tail_energy
from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.modegpt_plan import PARTS, Cut, Grain, Order, Part, Unknown, narrow
from hpo.compress.profile import Array, ModelProfile


@dataclass(frozen=True)
class Section:
    """One of the three sizes of a block."""

    path: str
    """Of the module that is cut: an attention, or what holds an MLP."""
    part: Part
    block: int
    losses: Array
    """What each unit in turn spares; its length is the number of units."""
    weights: int
    """Of all layers and their biases, for one unit."""

    @property
    def key(self) -> str:
        return f"{self.path}@{self.part}"

    @property
    def units(self) -> int:
        return len(self.losses)

    @cached_property
    def damage(self) -> Array:
        """Relative error when the first 0, 1, ... units are kept, (units + 1,)."""
        return np.sqrt(tail_energy(np.sqrt(self.losses)))


@dataclass(frozen=True)
class Layout:
    """Sections of a model and the layers they run through."""

    architecture: Architecture
    sections: tuple[Section, ...]
    grains: Mapping[str, Grain]
    """By layer; one that is missing is left as it is."""
    owners: Mapping[str, str]
    """Layer that is left as it is -> class of the module that it is part of."""

    @classmethod
    def of(cls, architecture: Architecture, arrays: Mapping[str, Array]) -> "Layout":
        """Read it off the arrays that `hpo.compress.modegpt_basis` prepares."""
        grains = {x.name: Grain.from_array(arrays[x.name]) for x in architecture.layers if x.name in arrays}
        pairs = (key.partition("@") for key in arrays)
        owners = {name: text for name, _, text in pairs if text and text not in PARTS}
        layers: dict[str, list[LayerShape]] = {}
        for layer in architecture.layers:
            if layer.name in grains:
                layers.setdefault(_owner(layer.name), []).append(layer)
        sections = tuple(
            Section(path, part, own[0].block, np.asarray(arrays[f"{path}@{part}"]), weights)
            for path, own in layers.items()
            for index, part in enumerate(PARTS)
            if (weights := sum(_unit_weights(layer, grains[layer.name], index) for layer in own))
        )
        return cls(architecture, sections, grains, owners)

    @cached_property
    def units(self) -> Array:
        """Shape (P,)."""
        return np.array([section.units for section in self.sections], dtype=float)

    @cached_property
    def weights(self) -> Array:
        """Of a unit, (P,)."""
        return np.array([section.weights for section in self.sections], dtype=float)

    @cached_property
    def blocks(self) -> NDArray[np.int64]:
        """Of each section, (P,)."""
        return np.array([section.block for section in self.sections], dtype=np.int64)

    @cached_property
    def dims(self) -> NDArray[np.int64]:
        """Dimensions of a head that are one unit: 2 where rotation pairs them, (P,)."""
        sizes = {section.path: section.units for section in self.sections if section.part == "value"}
        return np.array(
            [sizes[x.path] // x.units if x.part == "query_key" else 1 for x in self.sections], dtype=np.int64
        )

    def is_part(self, part: Part) -> NDArray[np.bool_]:
        return np.array([section.part == part for section in self.sections], dtype=bool)

    def plans(self, kept_P: NDArray[np.int64], order: Order) -> tuple[LayerPlan, ...]:
        """Return the plan of every layer when so many units of each section are kept."""
        kept, context = [*kept_P.tolist(), 0], self.architecture.context
        cuts = [Cut((kept[a], kept[b], kept[c]), dense) for (a, b, c), dense in self._modules]
        return tuple(
            row if isinstance(row, Unknown) else narrow(*row[:3], cuts[row[3]], context, order)
            for row in self._rows
        )

    def damage(self, layer: LayerShape, cut: Cut) -> float:
        """Return the largest relative error of the sections that a layer is cut by."""
        return max(float(damage[cut.kept[index]]) for index, damage in self._damages[layer.name])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Which section is which; one that a module lacks would be the last of all."""
        return {section.key: number for number, section in enumerate(self.sections)}

    @cached_property
    def _paths(self) -> list[str]:
        return list(dict.fromkeys(section.path for section in self.sections))

    @cached_property
    def _modules(self) -> list[tuple[tuple[int, int, int], tuple[int, int, int]]]:
        """For each module that is cut the numbers of its sections and their units."""
        units = [*(section.units for section in self.sections), 0]
        found = []
        for path in self._paths:
            a, b, c = (self._numbers.get(f"{path}@{part}", -1) for part in PARTS)
            found.append(((a, b, c), (units[a], units[b], units[c])))
        return found

    @cached_property
    def _rows(self) -> list[Unknown | tuple[int, int, Grain, int]]:
        """For each layer its plan, if it is left alone, or its shape, grain and the number of its module."""
        modules = {path: number for number, path in enumerate(self._paths)}
        return [
            (layer.out_features, layer.in_features, self.grains[layer.name], modules[_owner(layer.name)])
            if layer.name in self.grains
            else Unknown(layer.out_features, layer.in_features, self.owners.get(layer.name, "its module"))
            for layer in self.architecture.layers
        ]

    @cached_property
    def _damages(self) -> dict[str, list[tuple[int, Array]]]:
        """For each layer the parts that it is cut by, and the damage of their sections."""
        damages = {section.key: section.damage for section in self.sections}
        return {
            name: [
                (index, damages[f"{_owner(name)}@{part}"])
                for index, part in enumerate(PARTS)
                if grain.rows[index] or grain.columns[index]
            ]
            for name, grain in self.grains.items()
        }


_LAYOUTS: dict[tuple[str, str, int], Layout] = {}


def layout_of(profile: ModelProfile, basis: str) -> Layout:
    """Return the layout of a model, made once: a search plans thousands of candidates.

    Raises:
        HpoError: the profile was made without this preparation.
    """
    key = (profile.key, basis, profile.architecture.context)
    if key not in _LAYOUTS:
        _LAYOUTS[key] = Layout.of(profile.architecture, profile.prepared(basis))
    return _LAYOUTS[key]


def _owner(layer: str) -> str:
    return layer.rpartition(".")[0]


def _unit_weights(layer: LayerShape, grain: Grain, index: int) -> int:
    biases = grain.has_bias * grain.rows[index]
    return grain.weights(index, layer.out_features, layer.in_features) + biases
