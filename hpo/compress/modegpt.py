"""MoDeGPT: narrower MLPs and heads in place of factors. The result is a plain smaller transformer.

Letters: P sections that are cut.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

import numpy as np
from torch import nn

from hpo.compress.layer_plan import Dense, LayerPlan
from hpo.compress.materials import Materials
from hpo.compress.modegpt_allocation import kept_units
from hpo.compress.modegpt_basis import Narrowing
from hpo.compress.modegpt_cut import cut_attention, cut_mlp
from hpo.compress.modegpt_knobs import ModegptKnobs
from hpo.compress.modegpt_layout import layout_of
from hpo.compress.modegpt_parts import Mlp, anatomy
from hpo.compress.modegpt_plan import Narrow, Order
from hpo.compress.modegpt_sensitivity import NarrowingSensitivity
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.sensitivity import BLOCK_INFLUENCE
from hpo.errors import Unsupported
from hpo.space import Value


class Modegpt:
    """Cuts whole units out of each block and lets the next layer make up for them.

    MLP: some units are kept, the layer that reads them is refitted (Nystrom). Queries and keys: columns by
    the product of their norms, rotary pairs together. Values: encoded by singular vectors of the output
    layer weighted by what it reads, which is refitted to all heads together.

    Two things differ from the paper, since they lose less on all models tried here. It takes units by
    ridge leverage (``order: leverage``), where the default eliminates one after the other: a
    perplexity of 2.83 against 2.94 with 60 % of the units of a model whose own is 2.04. And it weights
    values by what the value layer reads and restores each head alone: 3.21 against 2.71 with half of the
    dimensions.

    Source: MoDeGPT, Lin et al. 2024, arXiv:2408.09632.
    """

    stage: ClassVar[Literal["factorise"]] = "factorise"
    summary = "a plain smaller transformer: fewer MLP units and smaller heads, the rest fitted to make up"
    paper = "MoDeGPT, arXiv:2408.09632"
    knob_type: ClassVar[type[Knobs]] = ModegptKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        found: list[Preparation] = []
        rules = knob_values["allocation"]
        for order in get_args(Order):
            if order not in knob_values["order"]:
                continue
            basis = Narrowing(order)
            found.append(basis)
            if "sensitivity" in rules:
                found.append(NarrowingSensitivity(basis))
        if "softmax" in rules:
            found.append(BLOCK_INFLUENCE)
        return tuple(found)

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        assert isinstance(knobs, ModegptKnobs)
        basis = Narrowing(knobs.order).name
        layout = layout_of(profile, basis)
        return layout.plans(kept_units(profile, layout, knobs, basis), knobs.order)

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        plans = {shape.name: (shape, layer) for shape, layer in plan.named()}
        for _, layer in plans.values():
            if not isinstance(layer, Narrow | Dense):
                raise Unsupported(f"{layer.kind} in a plan of narrower layers", "allowed: dense, narrow")
        for part in anatomy(model, plan.architecture).parts:
            layers = [plans[name][1] for name in part.layers]
            chosen = next((layer for layer in layers if isinstance(layer, Narrow)), None)
            if chosen is None:
                continue
            prepared = materials.store.load(Narrowing(chosen.order).name, part.path)
            gram = materials.store.load("gram", plans[part.output][0].gram)["gram"]
            query_key, value, units = chosen.cut.kept
            if isinstance(part, Mlp):
                cut_mlp(model, part, prepared["order"], units, gram)
            else:
                cut_attention(model, part, prepared, query_key * part.unit, value, gram)

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        found = np.zeros(len(layers))
        for index, (shape, layer) in enumerate(zip(profile.architecture.layers, layers, strict=True)):
            if isinstance(layer, Narrow):
                layout = layout_of(profile, Narrowing(layer.order).name)
                found[index] = layout.damage(shape, layer.cut)
        return found
