"""What of a model can be removed, as plans see it, in order of importance. Needs no torch.

Letters: L layers, P sections (the heads of an attention or the units of an MLP).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.modegpt_plan import Unknown
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.prune_plan import PARTS, Cut, Grain, Part, Trimmed, trimmed
from hpo.compress.prune_sections import Ints, Ranking, Section, falling


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
        """Read it off the arrays that `hpo.compress.prune_scores` prepares."""
        grains = {x.name: Grain.from_array(arrays[x.name]) for x in architecture.layers if x.name in arrays}
        pairs = (key.partition("@") for key in arrays)
        known = {*PARTS, *(f"{part}.level" for part in PARTS)}
        owners = {name: text for name, _, text in pairs if text and text not in known}
        layers: dict[str, list[LayerShape]] = {}
        for layer in architecture.layers:
            if layer.name in grains:
                layers.setdefault(_owner(layer.name), []).append(layer)
        sections = tuple(
            _section(path, part, own, grains, arrays)
            for path, own in layers.items()
            for part in PARTS
            if f"{path}@{part}" in arrays
        )
        return cls(architecture, sections, grains, owners)

    @cached_property
    def items(self) -> Ints:
        """Of each section, (P,)."""
        return np.array([section.items for section in self.sections], dtype=np.int64)

    @cached_property
    def weights(self) -> Array:
        """Of an item, (P,)."""
        return np.array([section.weights for section in self.sections], dtype=float)

    @cached_property
    def biases(self) -> Array:
        """That come with compensation, (P,)."""
        return np.array([section.bias for section in self.sections], dtype=float)

    @cached_property
    def least(self) -> Array:
        """Items that are left in any case, (P,)."""
        return np.array([section.least for section in self.sections], dtype=float)

    @cached_property
    def blocks(self) -> Ints:
        """Of each section, (P,)."""
        return np.array([section.block for section in self.sections], dtype=np.int64)

    @cached_property
    def last_block(self) -> int:
        return self.architecture.blocks - 1

    @cached_property
    def is_heads(self) -> NDArray[np.bool_]:
        """Which sections are heads, (P,)."""
        return np.array([section.part == "heads" for section in self.sections], dtype=bool)

    @cached_property
    def shared_heads(self) -> tuple[str, int] | None:
        """A layer that reads groups of several query heads, and their number; None if there is none."""
        groups = ((name, grain.queries) for name, grain in self.grains.items() if grain.queries > 1)
        return next(groups, None)

    def ranking(self, free: NDArray[np.bool_]) -> Ranking:
        """Return all items of some sections, (P,), in order; made once for each choice."""
        key = free.tobytes()
        if key not in self._rankings:
            self._rankings[key] = Ranking([self.sections[number] for number in np.flatnonzero(free)])
        return self._rankings[key]

    @cached_property
    def _rankings(self) -> dict[bytes, Ranking]:
        return {}

    def plans(self, kept_P: Ints, metric: str, *, compensated: bool) -> tuple[LayerPlan, ...]:
        """Return the plan of every layer when so many items of each section are kept."""
        kept = [*kept_P.tolist(), 0]
        found: list[LayerPlan] = list(self._left_alone)
        for module in self._modules:
            sizes = kept[module.heads], kept[module.units]
            for place, plan in zip(module.places, self._cut(module, sizes, metric, compensated), strict=True):
                found[place] = plan
        return tuple(found)

    def damage(self, layers: Sequence[LayerPlan]) -> Array:
        """Return the damage of the section that each layer is part of, (L,); 0 where it is left as it is."""
        return np.array(
            [
                known[1][layer.cut.kept[known[0]]] if isinstance(layer, Trimmed) and known else 0.0
                for layer, known in zip(layers, self._damages, strict=True)
            ]
        )

    def _cut(
        self, module: "_Module", sizes: tuple[int, int], metric: str, compensated: bool
    ) -> tuple[LayerPlan, ...]:
        """Return the plans of a module's layers; equal modules share them."""
        key = (module.layers, sizes, metric, compensated)
        if key not in self._cuts:
            cut, context = Cut(sizes, module.items), self.architecture.context
            self._cuts[key] = tuple(
                trimmed(out, into, grain, cut, context, metric, compensated)
                for out, into, grain in self._kinds[module.layers]
            )
        return self._cuts[key]

    @cached_property
    def _cuts(self) -> dict[tuple[int, tuple[int, int], str, bool], tuple[LayerPlan, ...]]:
        return {}

    @cached_property
    def _left_alone(self) -> list[Unknown]:
        """The plan that each layer has as long as nothing is known of its module."""
        return [
            Unknown(layer.out_features, layer.in_features, self.owners.get(layer.name, "its module"))
            for layer in self.architecture.layers
        ]

    @cached_property
    def _modules(self) -> list["_Module"]:
        numbers = {section.key: number for number, section in enumerate(self.sections)}
        items = [*self.items.tolist(), 0]
        places: dict[str, list[int]] = {}
        for place, layer in enumerate(self.architecture.layers):
            if layer.name in self.grains:
                places.setdefault(_owner(layer.name), []).append(place)
        found = []
        for path, own in places.items():
            layers = [self.architecture.layers[place] for place in own]
            kind = tuple((x.out_features, x.in_features, self.grains[x.name]) for x in layers)
            if kind not in self._kinds:
                self._kinds.append(kind)
            heads, units = (numbers.get(f"{path}@{part}", len(numbers)) for part in PARTS)
            sizes = items[heads], items[units]
            found.append(_Module(tuple(own), self._kinds.index(kind), heads, units, sizes))
        return found

    @cached_property
    def _kinds(self) -> list[tuple[tuple[int, int, Grain], ...]]:
        """Rows, columns and grains of the layers of modules that differ; filled by `_modules`."""
        return []

    @cached_property
    def _damages(self) -> list[tuple[int, Array] | None]:
        """For each layer the part that it is cut by and the damage of that section; None if left alone."""
        damages = {section.key: section.damage for section in self.sections}
        found: list[tuple[int, Array] | None] = []
        for layer in self.architecture.layers:
            grain = self.grains.get(layer.name)
            index = 0 if grain and (grain.head_rows or grain.head_columns) else 1
            known = index, damages.get(f"{_owner(layer.name)}@{PARTS[index]}", np.zeros(0))
            found.append(known if grain else None)
        return found


@dataclass(frozen=True)
class _Module:
    """An attention or an MLP that is cut."""

    places: tuple[int, ...]
    """Of its layers among all."""
    layers: int
    """Number of the kind that its layers are of."""
    heads: int
    """Number of the section, or of the one after the last; so the next."""
    units: int
    items: tuple[int, int]
    """By part."""


def _section(
    path: str, part: Part, layers: list[LayerShape], grains: Mapping[str, Grain], arrays: Mapping[str, Array]
) -> Section:
    key, index = f"{path}@{part}", PARTS.index(part)
    importances = np.asarray(arrays[key])
    order = falling(importances)
    own = [(layer, grains[layer.name]) for layer in layers]
    reading = [layer for layer, grain in own if grain.columns[index] and not grain.has_bias]
    return Section(
        path=path,
        part=part,
        block=layers[0].block,
        importances=importances[order],
        levels=np.asarray(arrays[f"{key}.level"])[order],
        weights=sum(grain.weights(index, layer.out_features, layer.in_features) for layer, grain in own),
        bias=sum(layer.out_features for layer in reading),
    )


_LAYOUTS: dict[tuple[str, str, int], Layout] = {}


def layout_of(profile: ModelProfile, scores: str) -> Layout:
    """Return the layout of a model, made once: a search plans thousands of candidates.

    Raises:
        HpoError: the profile was made without this preparation.
    """
    key = (profile.key, scores, profile.architecture.context)
    if key not in _LAYOUTS:
        _LAYOUTS[key] = Layout.of(profile.architecture, profile.prepared(scores))
    return _LAYOUTS[key]


def _owner(layer: str) -> str:
    return layer.rpartition(".")[0]
