"""Few bits and low rank together: corrected quantization, alternation, and factors in few bits."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hpo.compress.architecture import LayerShape
from hpo.compress.bases import WHITENED
from hpo.compress.corrected_plan import Corrected, PackedLowRank, corrected, packed_low_rank
from hpo.compress.grid import UNITS, Grid
from hpo.compress.layer_plan import Dense, LayerPlan
from hpo.compress.layers import CorrectedLinear, PackedLowRankLinear
from hpo.compress.layers.packed import Packed
from hpo.compress.materials import Materials
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.residual import Residual, rounded
from hpo.compress.splits import Splits
from hpo.compress.surgery import bias_of, replace
from hpo.errors import Unsupported
from hpo.space import Value


class RoundingKnobs(Knobs):
    """The grid, and how many ranks (at most one of `rank` and `rank_ratio`)."""

    bits: Literal[2, 3, 4, 8] = 4
    group_size: Literal[0, 32, 64, 128] = 64
    """Weights of a row that share a scale; 0: all of them."""
    symmetric: bool = True
    """Without, each group has an offset beside its scale."""
    rank: int | None = Field(default=None, ge=0)
    """The same everywhere, clipped to what each layer can have."""
    rank_ratio: float | None = Field(default=None, ge=0, le=2)
    """Share of each layer's break-even rank, where two factors hold as many weights as the matrix."""

    @model_validator(mode="after")
    def _one_rank(self) -> Self:
        if (self.rank is None) == (self.rank_ratio is None):
            raise ValueError("give exactly one of rank, rank_ratio")
        return self

    @property
    def grid(self) -> Grid:
        return Grid(self.bits, self.group_size, self.symmetric)

    def rank_of(self, layer: LayerShape) -> int:
        """Return the rank of a layer."""
        if self.rank is not None:
            return self.rank
        assert self.rank_ratio is not None
        return round(self.rank_ratio * layer.break_even_rank)


class EoraKnobs(RoundingKnobs):
    """Rank 0 is quantization alone."""

    factor_bits: Literal[2, 3, 4, 8, 16] = 16
    """Of the correction's factors, in the same groups; 16 keeps them in the model's own precision."""

    @property
    def factor_grid(self) -> Grid | None:
        if self.factor_bits == 16:
            return None
        return Grid(self.factor_bits, self.group_size, self.symmetric)


class CalderaKnobs(EoraKnobs):
    """With how often the quantizer and the factors take turns."""

    iterations: int = Field(default=5, ge=1, le=100)


class LplrKnobs(RoundingKnobs):
    """Of the factors, which are all there is."""

    iterations: int = Field(default=5, ge=1, le=100)
    """Times that each factor answers to the rounded other one."""


class Eora:
    """Round to nearest, then correct the layer's outputs with low-rank factors of what rounding lost.

    Sources: EoRA, Liu et al. 2024, arXiv:2410.21271; QERA, Zhang et al. 2024, arXiv:2410.06040.
    """

    stage: ClassVar[Literal["factorise"]] = "factorise"
    summary: ClassVar[str] = "rounded weights, with an activation-weighted low-rank correction"
    paper: ClassVar[str] = "EoRA, arXiv:2410.21271; QERA, arXiv:2410.06040"
    knob_type: ClassVar[type[Knobs]] = EoraKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        return tuple(map(Residual, _grids(knob_values)))

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        assert isinstance(knobs, EoraKnobs)
        iterations = knobs.iterations if isinstance(knobs, CalderaKnobs) else 1
        return tuple(
            corrected(
                layer.out_features,
                layer.in_features,
                knobs.grid,
                knobs.rank_of(layer),
                knobs.factor_grid,
                iterations,
                weight_bits=profile.architecture.weight_bits,
            )
            for layer in profile.architecture.layers
        )

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        splits = Splits(plan.architecture, materials)
        for shape, layer in plan.named():
            if isinstance(layer, Corrected):
                if layer.iterations == 1 and not layer.factor_grid and layer.rank <= shape.break_even_rank:
                    tensors = materials.store.load(Residual(layer.grid).name, shape.name)
                else:
                    tensors = splits.tensors(shape, layer)
                old = model.get_submodule(shape.name)
                replace(model, shape.name, _corrected_linear(tensors, layer, old))
            elif not isinstance(layer, Dense):
                raise Unsupported(f"{layer.kind} in a plan of corrected layers", "allowed: dense, corrected")

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        """Return the error that one correction in full precision leaves: for alternation an upper bound."""
        grids = {layer.grid for layer in layers if isinstance(layer, Corrected)}
        left_over = {grid: profile.spectra(Residual(grid).name) for grid in grids}
        return np.array(
            [
                left_over[layer.grid][k][layer.rank] if isinstance(layer, Corrected) else 0.0
                for k, layer in enumerate(layers)
            ]
        )


class Caldera(Eora):
    """Rounded weights and low-rank factors by turns: each takes what the other leaves.

    Source: CALDERA, Saha et al. 2024, arXiv:2405.18886; rounding to nearest stands in for its lattice codes.
    """

    summary = "rounded weights plus low-rank factors, fitted to each other by turns"
    paper = "CALDERA, arXiv:2405.18886"
    knob_type = CalderaKnobs


class Lplr:
    """Low-rank factors in few bits in place of the weights, each fitted to the rounded other one.

    Source: LPLR, Saha et al. 2023, arXiv:2310.11028.
    """

    stage: ClassVar[Literal["factorise"]] = "factorise"
    summary: ClassVar[str] = "low-rank factors in few bits, fitted to each other by turns"
    paper: ClassVar[str] = "LPLR, arXiv:2310.11028"
    knob_type: ClassVar[type[Knobs]] = LplrKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        return (WHITENED,)

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        assert isinstance(knobs, LplrKnobs)
        return tuple(
            packed_low_rank(
                layer.out_features,
                layer.in_features,
                knobs.grid,
                knobs.rank_of(layer),
                knobs.iterations,
                weight_bits=profile.architecture.weight_bits,
            )
            for layer in profile.architecture.layers
        )

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        splits = Splits(plan.architecture, materials)
        for shape, layer in plan.named():
            if isinstance(layer, PackedLowRank):
                tensors = splits.tensors(shape, layer)
                old = model.get_submodule(shape.name)
                left, right = _packed_factors(tensors, layer, layer.grid, old)
                replace(model, shape.name, PackedLowRankLinear(left, right, bias_of(old)))
            elif not isinstance(layer, Dense):
                allowed = "allowed: dense, packed_low_rank"
                raise Unsupported(f"{layer.kind} in a plan of packed factors", allowed)

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        """Return the energy cut off and, of what stays, the rounding error of one factor: 1.2 / 2^bits of its
        norm (measured on Gaussian weights in groups of 32; the other factor makes up for its own)."""
        packed = [layer if isinstance(layer, PackedLowRank) else None for layer in layers]
        cut = profile.lost(WHITENED.name, np.array([layer.rank if layer else 0 for layer in packed]))
        noise = np.array([(1.2 / 2**layer.grid.bits) ** 2 if layer else 0.0 for layer in packed])
        is_packed = np.array([layer is not None for layer in packed])
        return np.where(is_packed, np.sqrt(cut + (1 - cut) * noise), 0.0)


def _grids(knob_values: Mapping[str, Sequence[Value]]) -> list[Grid]:
    values: Any = [knob_values[name] for name in ("bits", "group_size", "symmetric")]
    return [Grid(bits, group, even) for bits, group, even in product(*values) if bits in UNITS]


def _corrected_linear(tensors: Mapping[str, Tensor], layer: Corrected, old: nn.Module) -> CorrectedLinear:
    """Return the layer of kept tensors, of whose factors the first `rank` are taken."""
    device = next(old.parameters()).device
    backbone = rounded(tensors, "backbone", layer.grid, layer.in_features, device)
    if layer.rank == 0:
        return CorrectedLinear(backbone, None, None, bias_of(old))
    if layer.factor_grid is not None:
        left, right = _packed_factors(tensors, layer, layer.factor_grid, old)
        return CorrectedLinear(backbone, left, right, bias_of(old))
    left_OR = tensors["left"][:, : layer.rank].to(device).contiguous()
    right_RI = tensors["right"][: layer.rank].to(device).clone()
    return CorrectedLinear(backbone, left_OR, right_RI, bias_of(old))


def _packed_factors(
    tensors: Mapping[str, Tensor], layer: Corrected | PackedLowRank, grid: Grid, old: nn.Module
) -> tuple[Packed, Packed]:
    device: torch.device = next(old.parameters()).device
    left = rounded(tensors, "left", grid, layer.out_features, device)
    return left, rounded(tensors, "right", grid, layer.in_features, device)
