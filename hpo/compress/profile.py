"""What is known of a model before any trial: shapes, spectra, identity. Torch-free, so that a
coordinator can plan with it anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.compress.allocate import spectral_table, tail_energy
from hpo.compress.architecture import SMALLEST_SIDE, Architecture, LayerShape
from hpo.compress.layer_plan import Dense, LayerPlan
from hpo.errors import HpoError, Unsupported

Array = NDArray[np.float64]

LEVELS = np.geomspace(1.0, 1e-9, 600)
"""Shares of energy lost at which ranks are tabulated, descending; ranks between are interpolated."""


@dataclass(frozen=True)
class ModelProfile:
    """Computed once per model and calibration text."""

    architecture: Architecture
    key: str
    """Content hash of model and calibration; names the factor cache."""
    arrays: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    """Preparation -> what it keeps for planning, e.g. singular values by layer; see
    `hpo.compress.preparation`."""

    is_pruned: bool = False
    """Whether an earlier stage will make the layers smaller: nothing else is known of them yet."""

    @property
    def shapes(self) -> tuple[LayerShape, ...]:
        return self.architecture.layers

    def cut_to(self, layers: Sequence[LayerPlan]) -> "ModelProfile":
        """Return what is known of the model once its layers are so: those that are one matrix still, with
        their new shapes."""
        left = tuple(
            replace(shape, out_features=layer.matrices[0][0], in_features=layer.matrices[0][1])
            for shape, layer in zip(self.shapes, layers, strict=True)
            if len(layer.matrices) == 1 and min(layer.matrices[0]) >= SMALLEST_SIDE
        )
        if not left:
            raise Unsupported("no layer is left to factorise", "prune less")
        return ModelProfile(replace(self.architecture, layers=left), self.key, is_pruned=True)

    @cached_property
    def dense_layers(self) -> tuple[LayerPlan, ...]:
        """The plan of every layer as it is; layers of one shape share it."""
        shapes = [(layer.out_features, layer.in_features) for layer in self.architecture.layers]
        made = {shape: Dense(*shape) for shape in shapes}
        return tuple(made[shape] for shape in shapes)

    @cached_property
    def outs(self) -> NDArray[np.int64]:
        return np.array([layer.out_features for layer in self.architecture.layers])

    @cached_property
    def ins(self) -> NDArray[np.int64]:
        return np.array([layer.in_features for layer in self.architecture.layers])

    @cached_property
    def caps(self) -> Array:
        """Break-even rank of every layer, shape (L,)."""
        return np.array([layer.break_even_rank for layer in self.architecture.layers], dtype=float)

    @cached_property
    def is_attention(self) -> NDArray[np.bool_]:
        return np.array([layer.group == "attention" for layer in self.architecture.layers])

    @cached_property
    def type_index(self) -> NDArray[np.int64]:
        """Which of ``architecture.types`` each layer is, shape (L,)."""
        return np.array([self.architecture.types.index(layer.type) for layer in self.architecture.layers])

    @cached_property
    def type_parameters(self) -> Array:
        """Dense weights of each type, shape (types,)."""
        weights = np.array([layer.parameters for layer in self.architecture.layers], dtype=float)
        return np.asarray(np.bincount(self.type_index, weights=weights))

    @cached_property
    def _known(self) -> dict[tuple[str, str], Any]:
        """What was derived from `arrays`, by purpose and preparation."""
        return {}

    def spectra(self, basis: str) -> tuple[Array, ...]:
        """Return the singular values of every layer, in order of ``architecture.layers``, descending.

        Raises:
            HpoError: the profile was made without this preparation.
        """
        values = self.prepared(basis)
        return tuple(values[layer.name] for layer in self.architecture.layers)

    def prepared(self, name: str) -> Mapping[str, Array]:
        """Return the arrays of a preparation.

        Raises:
            HpoError: the profile was made without it.
            Unsupported: it is of a pruned model.
        """
        if self.is_pruned:
            raise Unsupported(
                f"{name!r} of a pruned model is not known before it is made",
                "spread the budget evenly (allocation: uniform, a keep_ratio or rank)",
            )
        if name not in self.arrays:
            raise HpoError(
                f"the model profile has no {name!r}",
                f"it has: {', '.join(self.arrays) or 'nothing'}; profile the model again for this space",
            )
        return self.arrays[name]

    def table(self, name: str) -> Array:
        """Return what a preparation keeps of every layer, a row a layer in order of ``architecture.layers``.

        Raises:
            HpoError: the profile was made without this preparation.
        """
        if ("rows", name) not in self._known:
            self._known["rows", name] = np.stack(self.spectra(name))
        return np.asarray(self._known["rows", name])

    def tails(self, basis: str) -> tuple[Array, ...]:
        """Return the share of energy lost at rank 0..K for every layer.

        Raises:
            HpoError: the profile was made without this basis.
        """
        if ("tails", basis) not in self._known:
            self._known["tails", basis] = tuple(map(tail_energy, self.spectra(basis)))
        found: tuple[Array, ...] = self._known["tails", basis]
        return found

    def _flat_tails(self, basis: str) -> tuple[Array, NDArray[np.int64]]:
        if ("flat", basis) not in self._known:
            tails = self.tails(basis)
            offsets = np.cumsum([0, *(len(tail) for tail in tails[:-1])])
            self._known["flat", basis] = np.concatenate(tails), offsets
        found: tuple[Array, NDArray[np.int64]] = self._known["flat", basis]
        return found

    def lost(self, basis: str, ranks: NDArray[np.int64]) -> Array:
        """Return the share of energy every layer loses at its rank, shape (L,)."""
        flat, offsets = self._flat_tails(basis)
        return np.asarray(flat[offsets + ranks])

    def energies(self, basis: str) -> Array:
        """Return the squared norm that every layer's spectrum adds up to, shape (L,)."""
        if ("energies", basis) not in self._known:
            sums = [float(np.square(values).sum()) for values in self.spectra(basis)]
            self._known["energies", basis] = np.array(sums)
        return np.asarray(self._known["energies", basis])

    def rank_table(self, basis: str) -> Array:
        """Return ranks by level of lost energy, shape (T, L); computed on first use."""
        if ("table", basis) not in self._known:
            self._known["table", basis] = spectral_table(self.tails(basis), LEVELS)
        return np.asarray(self._known["table", basis])

    def bond_tails(self, basis: str) -> tuple[tuple[Array, ...], ...] | None:
        """Return the share of energy lost at bond 0..K for every cut of every layer; None if unknown."""
        if basis not in self.arrays:
            return None
        if ("bonds", basis) not in self._known:
            values = self.arrays[basis]
            self._known["bonds", basis] = tuple(
                tuple(map(tail_energy, _cuts(values, layer.name))) for layer in self.architecture.layers
            )
        found: tuple[tuple[Array, ...], ...] = self._known["bonds", basis]
        return found


def _cuts(values: Mapping[str, Array], layer: str) -> list[Array]:
    found: list[Array] = []
    while (key := f"{layer}@{len(found)}") in values:
        found.append(values[key])
    return found
