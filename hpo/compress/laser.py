"""Rank reduction of chosen layers: LASER."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hpo.compress.architecture import LayerShape
from hpo.compress.bases import PLAIN
from hpo.compress.laser_plan import Truncated, truncated
from hpo.compress.layer_plan import Dense, LayerPlan, LowRank, low_rank
from hpo.compress.low_rank import put_factors
from hpo.compress.materials import Materials
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.selection import SelectionKnobs, selected
from hpo.compress.surgery import replace, weight_of
from hpo.compress.svd_math import factor
from hpo.errors import Unsupported
from hpo.space import Value


class LaserKnobs(SelectionKnobs):
    """Which matrices, and how far each is reduced."""

    types: str = "mlp"
    """As `SelectionKnobs.types`."""
    rho: float = Field(gt=0, le=1)
    """Rank to keep, as a share of the smaller side of each matrix."""
    store: Literal["factors", "dense"] = "factors"
    """Whether the two factors are kept, or their product: of the old size, and as fast as before."""


class Laser:
    """Plain truncation of chosen types of layers in a span of blocks; the rest stays dense.

    Where factors are stored and would hold more weights than the matrix, the layer stays dense. A
    product that is stored has no factors, so healing leaves it alone.

    Source: LASER, Sharma et al. 2023, arXiv:2312.13558: late MLP matrices bear most, and small ones may
    even gain.
    """

    stage: ClassVar[Literal["factorise"]] = "factorise"
    summary: ClassVar[str] = "truncated SVD of chosen types of layers in a span of blocks"
    paper: ClassVar[str] = "LASER, arXiv:2312.13558"
    knob_type: ClassVar[type[Knobs]] = LaserKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        return (PLAIN,)

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        assert isinstance(knobs, LaserKnobs)
        chosen = selected(profile.architecture, knobs)
        return tuple(
            _planned(layer, knobs) if layer.name in chosen else Dense(layer.out_features, layer.in_features)
            for layer in profile.architecture.layers
        )

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        for shape, layer in plan.named():
            if isinstance(layer, LowRank):
                put_factors(model, shape.name, layer, materials.store, PLAIN.name)
            elif isinstance(layer, Truncated):
                left, right = _factors(model, shape, layer.rank, materials)
                replace(model, shape.name, _with_weight(model.get_submodule(shape.name), left @ right))
            elif not isinstance(layer, Dense):
                raise Unsupported(f"{layer.kind} in a LASER plan", "allowed: dense, low_rank, truncated")

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        ranks = np.array([layer.rank if isinstance(layer, LowRank | Truncated) else -1 for layer in layers])
        return np.where(ranks < 0, 0.0, np.sqrt(profile.lost(PLAIN.name, np.maximum(ranks, 0))))


def _planned(layer: LayerShape, knobs: LaserKnobs) -> LayerPlan:
    rank = max(round(knobs.rho * min(layer.out_features, layer.in_features)), 1)
    made = low_rank if knobs.store == "factors" else truncated
    return made(layer.out_features, layer.in_features, rank)


def _factors(model: nn.Module, shape: LayerShape, rank: int, materials: Materials) -> tuple[Tensor, Tensor]:
    """Return left and right: cached ones up to the break-even rank, beyond it made for the occasion."""
    weight = weight_of(model.get_submodule(shape.name)).detach()
    if rank > shape.break_even_rank:
        left, right, _ = factor(weight, None, rank, f"{shape.name}.weight")
        return left, right
    tensors = materials.store.load(PLAIN.name, shape.name)
    left, right = (tensors[name].to(weight.device).double() for name in ("left", "right"))
    return left[:, :rank], right[:rank]


def _with_weight(old: nn.Module, weight_OI: Tensor) -> nn.Module:
    """Return a linear layer like `old` with another matrix, in the precision of its own."""
    linear: Any = copy.deepcopy(old, {id(p): p for p in old.parameters()})
    stored: Tensor = linear.weight
    weight = weight_OI if isinstance(old, nn.Linear) else weight_OI.T  # GPT-2's Conv1D
    with torch.no_grad():
        linear.weight = nn.Parameter(weight.to(stored.dtype).contiguous(), requires_grad=False)
    made: nn.Module = linear
    return made
