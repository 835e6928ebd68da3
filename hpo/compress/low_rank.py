"""What all methods share that put two thin factors in place of a matrix; they differ in the basis they slice.

Letters: L layers.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from torch import nn

from hpo.compress import allocate
from hpo.compress.allocation import (
    AllocationKnobs,
    allocation_preparations,
    budgeted_ranks,
    multipliers,
    protected,
)
from hpo.compress.bases import LowRankBasis
from hpo.compress.budget import Array
from hpo.compress.factors import FactorStore
from hpo.compress.layer_plan import Dense, LayerPlan, LowRank, low_rank
from hpo.compress.layers import LowRankLinear
from hpo.compress.materials import Materials
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.refit import refit
from hpo.compress.surgery import bias_of, replace
from hpo.errors import Unsupported
from hpo.space import Value


class LowRankKnobs(AllocationKnobs):
    """How much to keep (exactly one of `keep_ratio`, `rank`, `threshold`), and how to spread it."""

    budget: Literal["keep_ratio", "rank", "threshold"] | None = None
    """Names which of the three is in force, so that a space can switch between them."""
    keep_ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of the linear layers' weights to keep."""
    rank: int | None = Field(default=None, ge=1)
    """The same rank everywhere, clipped to each layer's break-even rank."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Share of every layer's spectral energy to keep."""
    refit: bool = False
    """Fit the left factors again, layer after layer, to the inputs the compressed model gives them; pays
    where little is kept."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in ("keep_ratio", "rank", "threshold") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of keep_ratio, rank, threshold (given: {given or 'none'})")
        if self.budget is not None and self.budget != given[0]:
            raise ValueError(f"budget is {self.budget}, but {given[0]} is given")
        return self


class LowRankMethod:
    """Plans ranks, and slices the cached factors of its basis."""

    stage: ClassVar[Literal["factorise"]] = "factorise"
    summary: ClassVar[str]
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]] = LowRankKnobs
    default: ClassVar[LowRankBasis]
    """The basis where a plan names none."""

    def basis(self, knobs: Knobs) -> LowRankBasis:
        """Return what one candidate slices."""
        return self.default

    def bases(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[LowRankBasis, ...]:
        """Return what the candidates of a space may slice."""
        return (self.default,)

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        found: dict[Preparation, None] = {}
        for basis in self.bases(knob_values):
            found |= dict.fromkeys((basis, *allocation_preparations(basis, knob_values)))
        return tuple(found)

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        assert isinstance(knobs, LowRankKnobs)
        basis = self.basis(knobs)
        named = "" if basis == self.default else basis.name
        ranks = planned_ranks(profile, knobs, basis.name)
        return tuple(
            low_rank(layer.out_features, layer.in_features, rank, named, knobs.refit)
            for layer, rank in zip(profile.architecture.layers, ranks, strict=True)
        )

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        refitted = []
        for shape, layer in plan.named():
            if isinstance(layer, LowRank):
                put_factors(model, shape.name, layer, materials.store, layer.basis or self.default.name)
                if layer.refit:
                    refitted.append(shape.name)
            elif not isinstance(layer, Dense):
                raise Unsupported(f"{layer.kind} in a low-rank plan", "allowed: dense, low_rank")
        if refitted:
            refit(model, materials.dense, refitted, materials.calibration)

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        ranks = np.array([layer.rank if isinstance(layer, LowRank) else -1 for layer in layers])
        bases = np.array([getattr(layer, "basis", "") for layer in layers])
        damage = np.zeros(len(layers))
        for named in set(bases[ranks > 0].tolist()):
            lost = profile.lost(named or self.default.name, np.maximum(ranks, 0))
            damage = np.where((bases == named) & (ranks > 0), np.sqrt(lost), damage)
        return damage


def planned_ranks(profile: ModelProfile, knobs: LowRankKnobs, basis: str) -> list[int]:
    """Return the rank of every layer; at or above its cap it stays dense.

    Raises:
        Unsupported: see `budgeted_ranks`.
    """
    if knobs.keep_ratio is not None:
        return [int(rank) for rank in budgeted_ranks(profile, knobs, knobs.keep_ratio, basis)]
    if knobs.rank is not None:
        wanted = np.full(len(profile.caps), float(knobs.rank))
    else:
        assert knobs.threshold is not None
        kept = knobs.threshold
        wanted = np.array(
            [allocate.rank_for_energy(tail, kept) for tail in profile.tails(basis)], dtype=float
        )
    wanted = wanted * multipliers(profile.architecture, knobs)
    step = knobs.rank_multiple
    ranks = np.minimum(np.maximum(np.ceil(wanted / step - 1e-9) * step, 1), profile.caps)
    return [int(rank) for rank in np.where(protected(profile.architecture, knobs), profile.caps, ranks)]


def put_factors(model: nn.Module, name: str, layer: LowRank, store: FactorStore, basis: str) -> None:
    """Replace a layer of `model` by the first ranks of its cached factors."""
    tensors = store.load(basis, name)
    old = model.get_submodule(name)
    device = next(old.parameters()).device
    left = tensors["left"][:, : layer.rank].to(device).contiguous()
    right = tensors["right"][: layer.rank].to(device).clone()
    replace(model, name, LowRankLinear(left, right, bias_of(old)))
