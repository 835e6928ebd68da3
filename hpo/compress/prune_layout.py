"""What of a model can be removed, as plans see it, in order of importance. Needs no torch.

Letters: P sections (the heads of an attention or the units of an MLP), N items of all sections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.compress.architecture import SMALLEST_SIDE, Architecture, LayerShape
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.modegpt_plan import Unknown
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.prune_plan import PARTS, Cut, Grain, Part, Trimmed, trimmed

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
    def is_heads(self) -> NDArray[np.bool_]:
        """Which sections are heads, (P,)."""
        return np.array([section.part == "heads" for section in self.sections], dtype=bool)

    @cached_property
    def shared_heads(self) -> tuple[str, int] | None:
        """A layer that reads groups of several query heads, and their number; None if there is none."""
        groups = ((name, grain.queries) for name, grain in self.grains.items() if grain.queries > 1)
        return next(groups, None)

    def ranking(self, free: NDArray[np.bool_]) -> "Ranking":
        """Return all items of some sections, (P,), in order; made once for each choice."""
        key = free.tobytes()
        if key not in self._rankings:
            self._rankings[key] = Ranking(self, np.flatnonzero(free))
        return self._rankings[key]

    @cached_property
    def _rankings(self) -> dict[bytes, "Ranking"]:
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


class Ranking:
    """Items of the free sections in one order, those first that are left in any case, then by level."""

    def __init__(self, layout: Layout, numbers: Ints) -> None:
        """`numbers` of the free sections, (F,)."""
        sections = [layout.sections[number] for number in numbers]
        levels = np.concatenate([_first_of_all(section) for section in sections])
        owner_N = np.repeat(np.arange(len(sections)), [section.items for section in sections])
        order = np.argsort(-levels, kind="stable")  # equal ones by section, and there by importance
        owner_N = owner_N[order]
        weights_N = layout.weights[numbers][owner_N]
        is_heads_N = layout.is_heads[numbers][owner_N]
        self._is_heads = layout.is_heads[numbers]
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
            [np.searchsorted(places, end) for places, end in zip(self._places, ends, strict=True)],
            dtype=np.int64,
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


def falling(importances: NDArray[Any]) -> Ints:
    """Return the numbers of the items, the most important first; equal ones as they stand."""
    return np.argsort(-np.asarray(importances), kind="stable")


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
