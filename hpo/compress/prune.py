"""The stage ``prune`` where heads and MLP units go: what its methods share, and Wanda-sp."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from hpo.compress.layer_plan import LayerPlan
from hpo.compress.materials import Materials
from hpo.compress.method import Pruned
from hpo.compress.modegpt_parts import Mlp, anatomy
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.prune_allocation import kept_items
from hpo.compress.prune_cut import cut_heads, cut_units
from hpo.compress.prune_knobs import PruneKnobs
from hpo.compress.prune_layout import layout_of
from hpo.compress.prune_plan import Trimmed
from hpo.compress.prune_scores import Metric, PruneScores
from hpo.compress.recipe import Knobs
from hpo.compress.statistics import Statistics
from hpo.space import Value


class PruneItems:
    """Base of the methods that remove head groups and MLP units, the least important first.

    What is left is a plain smaller transformer; a key-value head goes with all query heads that share it, and
    one group and a few units are left in each block. Modules of a class that nobody knows how to cut stay as
    they are.
    """

    stage: ClassVar[Literal["prune"]] = "prune"
    knob_type: ClassVar[type[Knobs]] = PruneKnobs

    def metrics(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Metric, ...]:
        """Return the importances that items may be judged by, given what the knobs may be."""
        raise NotImplementedError

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        return tuple(PruneScores(metric) for metric in self.metrics(knob_values))

    def plan(self, profile: ModelProfile, knobs: Knobs) -> Pruned:
        """Return what is left of every layer.

        Raises:
            Unsupported: the knobs leave nothing, or heads that share keys and values cannot go alone.
        """
        assert isinstance(knobs, PruneKnobs)
        (metric,) = self.metrics(_lists(knobs))
        layout = layout_of(profile, PruneScores(metric).name)
        kept = kept_items(layout, knobs)
        return Pruned(layout.plans(kept, metric, compensated=knobs.compensate))

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        """Cut the planned heads and units out of `model`.

        Raises:
            NonFinite: the mean of what a layer reads, which is to be compensated, is NaN or infinite.
        """
        plans = {shape.name: (shape, layer) for shape, layer in plan.named()}
        owners = {shape.name: shape.gram for shape in plan.architecture.layers}
        statistics = Statistics(materials.store.root, materials.dense, materials.calibration, owners)
        for part in anatomy(model, plan.architecture).parts:
            shape, layer = plans[part.output]
            if not isinstance(layer, Trimmed):
                continue
            order = materials.store.load(f"prune-{layer.metric}", part.path)["order"]
            mean = statistics.moments(shape)[0] if layer.compensated else None
            heads, units = layer.cut.kept
            if isinstance(part, Mlp):
                cut_units(model, part, order[:units].sort().values, mean)
            else:
                cut_heads(model, part, order[:heads].sort().values, mean)

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        cut = next((layer for layer in layers if isinstance(layer, Trimmed)), None)
        if cut is None:
            return np.zeros(len(layers))
        return layout_of(profile, f"prune-{cut.metric}").damage(layers)


class WandaSp(PruneItems):
    """Removes what the output layers of attention and MLP read with the least weight: the sum of |W_ij| times
    the norm ||x_j|| over the columns of a head or unit.

    Source: Wanda, Sun et al. 2023, arXiv:2306.11695; for structures in FLAP, An et al. 2023,
    arXiv:2312.11983.
    """

    summary: ClassVar[str] = "remove heads and MLP units that are read with little weight and magnitude"
    paper: ClassVar[str] = "Wanda-sp, arXiv:2312.11983"

    def metrics(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Metric, ...]:
        return ("wanda",)


def _lists(knobs: Knobs) -> Mapping[str, Sequence[Any]]:
    """Return the knobs as values that each may take: one."""
    return {name: (getattr(knobs, name),) for name in type(knobs).model_fields}
