"""Matrix product operators: every weight matrix as a train of small cores."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from hpo.compress import mpo_plan
from hpo.compress.factors import FactorStore
from hpo.compress.layer_plan import Dense, LayerPlan
from hpo.compress.layers import MpoLinear
from hpo.compress.materials import Materials
from hpo.compress.mpo_adapted import Curve, adapted_bonds
from hpo.compress.mpo_basis import ORDER, WEIGHTED, MpoBasis, ReorderedBasis
from hpo.compress.mpo_bonds import Bonds, bonds_for_ratio, bonds_for_threshold, largest_bond
from hpo.compress.mpo_curves import SLICED, SWEPT, WEIGHTS, BondCurves
from hpo.compress.mpo_math import sliced
from hpo.compress.mpo_plan import Neurons, mpo
from hpo.compress.mpo_sites import RULES, check_shapes, count_of, named_factors
from hpo.compress.neurons import as_order, reorder, unit_of, units
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.surgery import bias_of, replace, weight_of
from hpo.compress.swept import swept_cores
from hpo.errors import Unsupported
from hpo.space import Value

_BUDGETS = ("bond_dimension", "threshold", "keep_ratio")


class MpoKnobs(Knobs):
    """How much to keep (exactly one of `bond_dimension`, `threshold`, `keep_ratio`), the shape of the tensor
    network, how it is fitted, and how it is contracted."""

    budget: Literal["bond_dimension", "threshold", "keep_ratio"] | None = None
    """Names which of the three is in force, so that a space can switch between them."""
    bond_dimension: int | None = Field(default=None, ge=1)
    """The largest bond; clipped at each cut to what can carry information."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """Share of the squared norm to keep at every cut."""
    keep_ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of every layer's weights to keep, or of all together with adapted bonds."""
    bonds: Literal["equal", "adapted"] = "equal"
    """With `keep_ratio`: the same share of every layer, or more for those that lose most by being cut, as a
    sweep at some shares and a look at each layer cut alone have shown. Within a layer bonds are even."""
    sites: int = Field(default=2, ge=2, le=4)
    """How many cores; factors that are named below have their own number."""
    factorisation: str = "ascending"
    """A rule (balanced, ascending, descending, skewed), or factors for every shape of layer, out before in:
    ``8x16:16x8, 16x22:16x8``."""
    sweeps: int = Field(default=0, ge=0, le=4)
    """Sweeps that fit the cores to the layer's inputs; the first does most."""
    permutation: Literal["none", "cluster"] = "none"
    """Neurons as the model numbers them, or those of like size together where that loses less."""
    contraction: mpo_plan.Contraction = "rebuild"

    @field_validator("factorisation")
    @classmethod
    def _readable(cls, factorisation: str) -> str:
        if factorisation not in RULES:
            named_factors(factorisation)
        return factorisation

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in _BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_BUDGETS)} (given: {given or 'none'})")
        if self.budget is not None and self.budget != given[0]:
            raise ValueError(f"budget is {self.budget}, but {given[0]} is given")
        if self.bonds == "adapted" and self.keep_ratio is None:
            raise ValueError(f"bonds: adapted shares out a keep_ratio (given: {given[0]})")
        return self

    @property
    def basis(self) -> MpoBasis:
        return MpoBasis(count_of(self.sites, self.factorisation), self.factorisation)


class Mpo:
    """Tensor-train (MPO) cores; a layer whose cores would not be smaller stays dense.

    TT-SVD gives the cores, sweeps fit them to the layer's inputs, and neurons may be reordered before.
    Chained contraction does fewer operations than the dense layer only above 64x compression of a
    4096 x 4096 layer with 2 sites (`skewed` ones apart), so `rebuild` is the default.

    Source: Oseledets 2011 (SIAM J. Sci. Comput. 33); for language models Tomut et al. 2024
    (CompactifAI), arXiv:2401.14109. Sweeps: see `hpo.compress.sweep_math`.
    """

    stage: ClassVar[Literal["factorise"]] = "factorise"
    summary: ClassVar[str] = "tensor-train cores (MPO) of 2 to 4 sites, fitted to activations by sweeps"
    paper: ClassVar[str] = "Oseledets 2011; CompactifAI, arXiv:2401.14109"
    knob_type: ClassVar[type[Knobs]] = MpoKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        found: dict[Preparation, None] = {}
        for factorisation in map(str, knob_values["factorisation"]):
            for sites in knob_values["sites"]:
                stored = MpoBasis(count_of(int(sites), factorisation), factorisation)
                found[stored] = None
                if "cluster" in knob_values["permutation"]:
                    found[ReorderedBasis(stored)] = None
                if "adapted" in knob_values["bonds"]:
                    found[BondCurves(stored)] = None
        if any(knob_values["sweeps"]):
            found[WEIGHTED] = None
        return tuple(found)

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        assert isinstance(knobs, MpoKnobs)
        shapes = [(layer.out_features, layer.in_features) for layer in profile.architecture.layers]
        check_shapes(knobs.factorisation, shapes)
        stored = self._with_bonds(profile, knobs, "" if knobs.permutation == "none" else "stored")
        if knobs.permutation == "none":
            return stored
        return _better(profile, stored, self._with_bonds(profile, knobs, "reordered"))

    def _with_bonds(self, profile: ModelProfile, knobs: MpoKnobs, neurons: Neurons) -> tuple[LayerPlan, ...]:
        basis, layers = knobs.basis, profile.architecture.layers
        bonds = _bonds(profile, knobs, ReorderedBasis(basis).name if neurons == "reordered" else basis.name)
        return tuple(
            mpo(
                layer.out_features,
                layer.in_features,
                basis.sites,
                each,
                knobs.contraction,
                sweeps=knobs.sweeps,
                factorisation=basis.factorisation,
                neurons=neurons,
            )
            for layer, each in zip(layers, bonds, strict=True)
        )

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        orders = _reorder(model, plan, materials.store)
        for shape, layer in plan.named():
            if isinstance(layer, mpo_plan.Mpo):
                _check_fit(shape.name, (shape.out_features, shape.in_features), layer)
                old = model.get_submodule(shape.name)
                weight = weight_of(old).detach()
                cores = _sliced(materials.store, shape.name, layer)
                if layer.sweeps:
                    order = orders.get(shape.name)
                    cores = swept_cores(materials.store, shape, layer, weight, cores, order)
                cores = [core.to(weight.device).clone() for core in cores]
                replace(model, shape.name, MpoLinear(cores, bias_of(old), layer.contraction, layer.cut))
            elif not isinstance(layer, Dense):
                raise Unsupported(f"{layer.kind} in an MPO plan", "allowed: dense, mpo")

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        """By the tails that the bonds cut off; after sweeps by what two thin factors of as many weights would
        lose of the outputs, less where a new order shortens the tails."""
        tails = np.array([_tail_sum(profile, k, layer) for k, layer in enumerate(layers)])
        damage = np.asarray(np.sqrt(np.minimum(tails, 1.0)))
        is_swept = np.array([isinstance(layer, mpo_plan.Mpo) and layer.sweeps > 0 for layer in layers])
        if WEIGHTED.name not in profile.arrays or not is_swept.any():
            return damage
        weights = np.array([layer.costs.parameters for layer in layers])
        ranks = np.minimum(weights // (profile.outs + profile.ins), np.minimum(profile.outs, profile.ins))
        stored = [_tail_sum(profile, k, layer, as_stored=True) for k, layer in enumerate(layers)]
        shorter = np.divide(tails, stored, out=np.ones(len(layers)), where=np.array(stored) > 0)
        lost = profile.lost(WEIGHTED.name, ranks) * np.minimum(shorter, 1.0)
        return np.asarray(np.where(is_swept, np.sqrt(lost), damage))


def _bonds(profile: ModelProfile, knobs: MpoKnobs, prepared: str) -> Sequence[int | Bonds]:
    """Return the bonds of every layer, or the one that serves all of its cuts.

    Raises:
        HpoError: the profile was made without the spectra that a threshold needs, or without the curves that
            adapted bonds follow.
    """
    basis, layers = knobs.basis, profile.architecture.layers
    if knobs.bond_dimension is not None:
        return [knobs.bond_dimension] * len(layers)
    splits = [basis.split(layer) for layer in layers]
    largest = [
        largest_bond(layer.out_features, layer.in_features, basis.sites, basis.factorisation)
        for layer in layers
    ]
    if knobs.keep_ratio is not None and knobs.bonds == "adapted":
        return adapted_bonds(knobs.keep_ratio, _curves(profile, knobs), splits, largest)
    if knobs.keep_ratio is not None:
        return bonds_for_ratio(knobs.keep_ratio, splits, largest)
    assert knobs.threshold is not None
    profile.prepared(prepared)
    tails = profile.bond_tails(prepared) or ()
    return [
        bonds_for_threshold(split, cuts, knobs.threshold, most) if cuts else 1
        for split, cuts, most in zip(splits, tails, largest, strict=True)
    ]


def _curves(profile: ModelProfile, knobs: MpoKnobs) -> list[Curve]:
    """Return what each layer's weights are worth; those of the stored order also serve another."""
    arrays = profile.prepared(BondCurves(knobs.basis).name)
    kind = SWEPT if knobs.sweeps else SLICED
    return [
        Curve(
            tuple(arrays[f"{layer.name}{WEIGHTS}"].tolist()),
            tuple(arrays[f"{layer.name}{kind}"].tolist()),
            layer.parameters,
        )
        for layer in profile.architecture.layers
    ]


def _better(
    profile: ModelProfile, stored: Sequence[LayerPlan], moved: Sequence[LayerPlan]
) -> tuple[LayerPlan, ...]:
    """Return, unit by unit, the plans as stored or those reordered, whichever hold fewer weights, then
    lose less; as stored where no order was found."""
    found = list(stored)
    for members in _reorderable(profile, moved).values():
        costs = [
            (
                sum(plans[k].costs.parameters for k in members),
                sum(_tail_sum(profile, k, plans[k]) for k in members),
            )
            for plans in (stored, moved)
        ]
        if costs[1] < costs[0]:
            for k in members:
                found[k] = moved[k]
    return tuple(found)


def _reorderable(profile: ModelProfile, moved: Sequence[LayerPlan]) -> dict[str, list[int]]:
    """Return the layers of each unit for which an order is known, by index.

    Raises:
        HpoError: the profile was made without the orders.
    """
    found: dict[str, list[int]] = {}
    for k, (shape, layer) in enumerate(zip(profile.architecture.layers, moved, strict=True)):
        if isinstance(layer, mpo_plan.Mpo) and f"{shape.name}{ORDER}" in profile.prepared(layer.prepared):
            found.setdefault(unit_of(shape.name), []).append(k)
    return found


def _tail_sum(profile: ModelProfile, index: int, layer: LayerPlan, as_stored: bool = False) -> float:
    """Return TT-SVD's bound on the relative squared error, the sum of the tails cut off; 0 if unknown."""
    if not isinstance(layer, mpo_plan.Mpo):
        return 0.0
    tails = profile.bond_tails(layer.prepared_as_stored if as_stored else layer.prepared)
    if tails is None:
        return 0.0
    cuts = zip(tails[index], layer.bonds, strict=True)
    return sum(float(tail[min(bond, len(tail) - 1)]) for tail, bond in cuts)


def _check_fit(name: str, features: tuple[int, int], layer: mpo_plan.Mpo) -> None:
    if (layer.out_features, layer.in_features) != features:
        raise Unsupported(
            f"sites {layer.out_sites} x {layer.in_sites} for {name}",
            f"their products must be its features, {features[0]} x {features[1]}",
        )


def _sliced(store: FactorStore, name: str, layer: mpo_plan.Mpo) -> list[Tensor]:
    tensors = store.load(layer.prepared, name)
    cores = sliced([tensors[f"core{k}"] for k in range(len(tensors))], layer.bonds)
    if [tuple(core.shape) for core in cores] != list(layer.links):
        cached = [tuple(tensors[f"core{k}"].shape) for k in range(len(tensors))]
        raise Unsupported(
            f"cores of shapes {list(layer.links)} for {name}", f"{layer.prepared} has them up to {cached}"
        )
    return cores


def _reorder(model: nn.Module, plan: Plan, store: FactorStore) -> dict[str, Tensor]:
    """Put the neurons and heads of `model` in their planned order; return the orders of reordered columns.

    Raises:
        Unsupported: some layers of a unit are planned in the new order and others as stored.
    """
    asked: dict[str, set[str]] = {}
    for shape, layer in plan.named():
        if isinstance(layer, mpo_plan.Mpo):
            asked.setdefault(unit_of(shape.name), set()).add(
                layer.prepared if layer.neurons == "reordered" else ""
            )
    columns, known = {}, {name: store.arrays(name) for names in asked.values() for name in names if name}
    for unit in units(model) if any(any(names) for names in asked.values()) else ():
        names = asked.pop(unit.name, {""})
        if len(names) > 1:
            raise Unsupported(f"{unit.name}: neurons reordered in some layers only", "plan all of them alike")
        if (prepared := names.pop()) == "":
            continue
        for member in unit.members:
            device = next(model.get_submodule(member).parameters()).device
            order = as_order(torch.from_numpy(known[prepared][f"{member}{ORDER}"]), device)
            reorder(model, unit, member, order)
            if member == unit.column:
                columns[member] = order
    if left := [name for name, names in asked.items() if any(names)]:
        raise Unsupported(f"{left[0]}: it is not known which neurons belong together", "plan them as stored")
    return columns
