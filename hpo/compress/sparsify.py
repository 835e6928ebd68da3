"""The stage ``sparsify``: what all of its methods share, and three of them.

None of them makes a model faster: no kernel here leaves zeros out. Whether one makes it smaller is a matter
of how it is stored.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import sqrt
from statistics import NormalDist
from typing import ClassVar, Literal

import numpy as np
from torch import nn

from hpo.compress.layer_plan import LayerPlan
from hpo.compress.materials import Materials
from hpo.compress.outliers import Outliers
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.sparse_allocation import patterns
from hpo.compress.sparse_plan import Sparse, sparse
from hpo.compress.sparsifier import ByActivation, ByMagnitude, BySurgery, Sparsifier
from hpo.compress.sparsify_knobs import ComparedKnobs, SparseGptKnobs, SparsifyKnobs, WandaKnobs
from hpo.compress.sparsifying import sparsify_layers
from hpo.errors import Unsupported
from hpo.space import Value

_NORMAL = NormalDist()


class Sparsify:
    """Base of the methods: one sparsifier for every layer that has matrices."""

    stage: ClassVar[Literal["sparsify"]] = "sparsify"
    knob_type: ClassVar[type[Knobs]]

    def sparsifier(self, knobs: Knobs) -> Sparsifier:
        """Return what chooses the weights."""
        raise NotImplementedError

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        """What an allocation goes by; what is worked out for a layer is kept when it is first wanted."""
        if "owl" not in knob_values["allocation"]:
            return ()
        return tuple(Outliers(int(times)) for times in knob_values["outlier"])

    def plan(self, profile: ModelProfile, knobs: Knobs, layers: Sequence[LayerPlan]) -> tuple[LayerPlan, ...]:
        """Return the layers with zeros; those with no matrix of their own stay as they are.

        Raises:
            Unsupported: no layer has one, the model has no layers such as are asked for, or one has a shape
                that does not go with the pattern.
        """
        assert isinstance(knobs, SparsifyKnobs)
        sparsifier, bits = self.sparsifier(knobs), profile.architecture.weight_bits
        found = []
        chosen = patterns(profile, knobs, layers)
        for shape, layer, pattern in zip(profile.shapes, layers, chosen, strict=True):
            if pattern is None:
                found.append(layer)
                continue
            try:
                found.append(sparse(layer, sparsifier, pattern, knobs.store, weight_bits=bits))
            except Unsupported as error:
                raise Unsupported(f"{shape.name}: {error.message}", error.hint) from None
        if not any(isinstance(layer, Sparse) for layer in found):
            kinds = ", ".join(sorted({layer.kind for layer in layers}))
            raise Unsupported(
                f"no layer gets zeros: layers are of kind {kinds}; asked for were types: {knobs.types}, "
                f"attention: {knobs.attention:g}, mlp: {knobs.mlp:g}",
                "leave the stage out, choose other layers, or another method before it",
            )
        return tuple(found)

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        sparsify_layers(model, plan, materials)

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        return np.array(
            [lost(layer.pattern.sparsity) if isinstance(layer, Sparse) else 0.0 for layer in layers]
        )


@lru_cache(maxsize=1 << 12)
def lost(sparsity: float) -> float:
    """Return the share of the norm of Gaussian weights that the smallest of them hold: a feature for the
    search."""
    edge = _NORMAL.inv_cdf((1 + sparsity) / 2)
    return sqrt(max(sparsity - 2 * edge * _NORMAL.pdf(edge), 0.0))


class Magnitude(Sparsify):
    """The smallest weights of each matrix become zero: what the others are measured against.

    Source: Han et al. 2015, arXiv:1506.02626.
    """

    summary: ClassVar[str] = "the smallest weights to zero, without data"
    paper: ClassVar[str] = "Han et al. 2015, arXiv:1506.02626"
    knob_type: ClassVar[type[Knobs]] = ComparedKnobs

    def sparsifier(self, knobs: Knobs) -> Sparsifier:
        return ByMagnitude()


class Wanda(Sparsify):
    """In every row the weights become zero whose magnitude times the norm of their input is smallest.

    The inputs are those of the model before any layer has zeros. The paper goes block by block, each reading
    what the blocks before it give with their zeros; on a small trained model that made no difference.

    Source: Sun et al. 2023, arXiv:2306.11695.
    """

    summary: ClassVar[str] = "weights to zero by magnitude times the norm of their input, row by row"
    paper: ClassVar[str] = "Wanda, arXiv:2306.11695"
    knob_type: ClassVar[type[Knobs]] = WandaKnobs

    def sparsifier(self, knobs: Knobs) -> Sparsifier:
        return ByActivation()


class SparseGpt(Sparsify):
    """Column after column weights become zero, and the columns that follow make up for what is lost.

    The inputs are those of the model before any layer has zeros, as for `Wanda`.

    Source: Frantar and Alistarh 2023, arXiv:2301.00774.
    """

    summary: ClassVar[str] = "weights to zero one column after the other, the later ones making up for it"
    paper: ClassVar[str] = "SparseGPT, arXiv:2301.00774"
    knob_type: ClassVar[type[Knobs]] = SparseGptKnobs

    def sparsifier(self, knobs: Knobs) -> Sparsifier:
        assert isinstance(knobs, SparseGptKnobs)
        return BySurgery(knobs.damping, knobs.slice_columns)
