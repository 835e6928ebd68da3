"""Basis sharing: low-rank layers of neighbouring blocks over one basis."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from hpo.compress import allocate
from hpo.compress.architecture import break_even_rank
from hpo.compress.budget import Room, rounded, scaled
from hpo.compress.layer_plan import Dense, LayerPlan
from hpo.compress.layers import LowRankLinear, SharedBasisLinear
from hpo.compress.materials import Materials
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.shared_bases import SharedBases
from hpo.compress.sharing_math import balanced_shared
from hpo.compress.sharing_plan import Share, SharedBasis, groups, role, shared_basis
from hpo.compress.surgery import bias_of, replace
from hpo.errors import Unsupported
from hpo.space import Value


class SharingKnobs(Knobs):
    """How much to keep (exactly one of `keep_ratio`, `rank`), what shares with what, how ranks are spread."""

    keep_ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of the linear layers' weights to keep, a shared basis counted once."""
    rank: int | None = Field(default=None, ge=1)
    """The same rank everywhere, clipped to each group's break-even rank."""
    group: int = Field(default=2, ge=2, le=4)
    """Blocks to a group; the last has fewer where the depth is no multiple."""
    share: Share = "all"
    """Which layers share a basis. Outputs of attention and of the MLP never do."""
    coefficients: Literal["own", "common"] = "own"
    """Fitted to each layer's own inputs, or all to the sum of inputs that chose the basis, as published."""
    allocation: Literal["uniform", "spectral"] = "uniform"
    """With `keep_ratio`: the same share everywhere, or the same loss of spectral energy."""
    floor: float = Field(default=0.5, ge=0, le=1)
    """With spectral allocation: no group below this share of its uniform rank."""
    rank_multiple: int = Field(default=1, ge=1, le=256)
    """Round ranks to multiples of this, which hardware likes."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.keep_ratio is None) == (self.rank is None):
            raise ValueError("give exactly one of keep_ratio, rank")
        return self

    @property
    def bases(self) -> SharedBases:
        return SharedBases(self.group, self.share, self.coefficients == "own")


class BasisSharing:
    """Whitened SVD of the same layer of neighbouring blocks together: one basis, coefficients for each.

    Query, key, value, up and gate projections share; outputs of attention and of the MLP get whitened SVD
    of their own, of the same ratio. With coefficients fitted to each layer's own inputs (not in the paper)
    it keeps ahead of whitened SVD also where the inputs of neighbours differ much.

    Source: Basis Sharing, Wang et al. 2024, arXiv:2410.03765.
    """

    stage: ClassVar[Literal["factorise"]] = "factorise"
    summary: ClassVar[str] = "whitened SVD with one basis for the same layer of neighbouring blocks"
    paper: ClassVar[str] = "Basis Sharing, arXiv:2410.03765"
    knob_type: ClassVar[type[Knobs]] = SharingKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        return tuple(
            SharedBases(int(group), share, coefficients == "own")  # type: ignore[arg-type] # checked as knobs
            for group in knob_values["group"]
            for share in knob_values["share"]
            for coefficients in knob_values["coefficients"]
        )

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        assert isinstance(knobs, SharingKnobs)
        shapes, found = profile.architecture.layers, groups(profile.architecture, knobs.group, knobs.share)
        planned: dict[int, LayerPlan] = {}
        for group, rank in zip(found, _ranks(profile, knobs, found), strict=True):
            for position, index in enumerate(group):
                out, into = shapes[index].out_features, shapes[index].in_features
                is_fitted = knobs.coefficients == "own"
                planned[index] = shared_basis(
                    out, into, rank, position, len(group), is_fitted, knobs.group, knobs.share
                )
        return tuple(planned[index] for index in range(len(shapes)))

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        begun: dict[str, list[str]] = {}
        for shape, layer in plan.named():
            if isinstance(layer, SharedBasis):
                names = begun.setdefault(role(shape), [])
                names.append(shape.name)
                if len(names) == layer.members:
                    _put(model, names, layer, materials)
                    names.clear()
            elif not isinstance(layer, Dense):
                raise Unsupported(f"{layer.kind} in a basis sharing plan", "allowed: dense, shared_basis")

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        planned = [layer for layer in layers if isinstance(layer, SharedBasis)]
        if not planned:
            return np.zeros(len(layers))
        ranks = np.array([layer.rank if isinstance(layer, SharedBasis) else -1 for layer in layers])
        lost = profile.lost(_bases(planned[0]).name, np.maximum(ranks, 0))
        return np.where(ranks < 0, 0.0, np.sqrt(lost))


def _ranks(profile: ModelProfile, knobs: SharingKnobs, found: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the rank of every group; shared by its members, it is allotted as that of one tall layer."""
    first = [group[0] for group in found]
    members = np.array([len(group) for group in found])
    outs, ins = profile.outs[first] * members, profile.ins[first]
    caps = np.array([break_even_rank(int(o), int(i)) for o, i in zip(outs, ins, strict=True)], dtype=float)
    if knobs.rank is not None:
        step = knobs.rank_multiple
        return [max(int(np.ceil(rank / step) * step), 1) for rank in np.minimum(knobs.rank, caps)]
    assert knobs.keep_ratio is not None
    budget = knobs.keep_ratio * profile.architecture.linear_parameters
    ranks = allocate.uniform_ranks(knobs.keep_ratio, outs, ins)
    least = np.clip(ranks * knobs.floor, 1.0, np.maximum(caps - 1, 1.0))
    room = Room((outs + ins).astype(float), caps, (outs * ins).astype(float), least, knobs.rank_multiple)
    if knobs.allocation == "spectral":
        table = profile.rank_table(knobs.bases.name)[:, first]
        ranks = allocate.spectral_ranks(budget, table, room, np.ones(len(first)))
    return [int(rank) for rank in rounded(scaled(ranks, budget, room), budget, room)]


def _bases(layer: SharedBasis) -> SharedBases:
    return SharedBases(layer.group, layer.share, layer.is_fitted)


def _put(model: nn.Module, names: Sequence[str], layer: SharedBasis, materials: Materials) -> None:
    """Put the layers of one group in place."""
    old = [model.get_submodule(name) for name in names]
    device = next(old[0].parameters()).device
    coefficients, basis = _bases(layer).sliced(materials.store, names[0], len(names), layer.rank)
    owned = basis.to(device)
    if len(names) == 1:
        replace(model, names[0], LowRankLinear(coefficients[0].to(device), owned, bias_of(old[0])))
        return
    owner = SharedBasisLinear(coefficients[0].to(device), owned, "", bias_of(old[0]))
    replace(model, names[0], owner)
    for name, module, left in zip(names[1:], old[1:], coefficients[1:], strict=True):
        replace(model, name, SharedBasisLinear(left.to(device), owner, names[0], bias_of(module)))


@torch.no_grad()
def balance_shared(model: nn.Module) -> None:
    """Even out the scales of shared bases and their coefficients in place; the function stays the same."""
    layers = [module for module in model.modules() if isinstance(module, SharedBasisLinear)]
    for owner in layers:
        if owner.basis is not None:
            members = [layer for layer in layers if layer.shared() is owner.basis]
            coefficients, basis = balanced_shared([layer.coefficients for layer in members], owner.basis)
            owner.basis.copy_(basis)
            for layer, even in zip(members, coefficients, strict=True):
                layer.coefficients.copy_(even)
