"""Adapters on the layers of a model, for as long as they are trained: put on, trained, merged or kept."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from hpo.compress.adapted_layers import Place, StandIns, places
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.layers import AdaptedLinear, Compressed
from hpo.compress.method import Patient
from hpo.compress.shown import RIGHT
from hpo.compress.snapshot import Snapshot
from hpo.compress.surgery import replace
from hpo.compress.teaching import Treatment


class AdapterKnobs(HealKnobs):
    """How to train, and the size and place of the adapters."""

    learning_rate: float = Field(default=3e-3, gt=0, lt=1)
    """Peak of the schedule; adapters bear more than factors do."""
    rank: int = Field(default=8, ge=1, le=4096)
    alpha: int = Field(default=16, ge=1, le=10_000)
    """The adapter's product counts ``alpha / rank`` times."""
    layers: Literal["all", "attention", "mlp"] = "all"
    """Which layers of the blocks have adapters."""
    adapter: Literal["merged", "kept"] = "merged"
    """Kept ones stay beside compressed layers as further weights; those of dense layers are merged, which
    loses nothing."""
    order: Literal["together", "right_then_left"] = "together"
    """All at once; or first those next to the inputs, then those next to the outputs (SVD-LLM,
    arXiv:2403.07378), half the steps each. What is shown as one matrix is trained in the second half."""


class AdapterKind(Protocol):
    """What tells LoRA's relatives apart."""

    def tuner(self, bank: nn.ModuleDict, knobs: AdapterKnobs) -> Any:
        """Put adapters on all linear layers of `bank`, drawn from torch's random state; return peft's model
        of it."""
        ...

    def is_trained(self, parameter: str) -> bool:
        """Whether a parameter of an adapter is trained, by its name in peft."""
        ...

    def penalty(self, tuner: Any) -> Tensor | None:
        """Return what is added to the loss."""
        ...

    def after_step(self, tuner: Any, step: int) -> None:
        """Called after each step, from 0, with gradients in place."""
        ...

    def snapshot(self, tuner: Any) -> Snapshot:
        """Return what peft's model has learnt beside the parameters that are trained."""
        ...

    def take_up(self, tuner: Any, snapshot: Snapshot) -> None:
        """Go on from there."""
        ...


class Adapters(Treatment):
    """Adapters of one kind on the layers of a model."""

    def __init__(self, kind: AdapterKind, patient: Patient, knobs: AdapterKnobs, seed: int) -> None:
        self._kept: list[Place]
        """They have an adapter beside them."""
        self._own: list[Place]
        """Their factors are the adapter: the correction of layers in few bits."""
        self._kind, self._knobs, self._model = kind, knobs, patient.model
        chosen = list(places(patient, knobs.layers))
        if knobs.adapter == "kept":
            merged = [place for place in chosen if place.is_plain]
            self._kept, self._own = [place for place in chosen if not place.is_plain], []
        else:
            merged = [place for place in chosen if place.takes_merged]
            self._kept, self._own = [], [place for place in chosen if not place.takes_merged]
        self._stand_ins = StandIns(self._model, merged)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._tuner = kind.tuner(self._stand_ins.bank, knobs) if merged else None
            for parameter in self._stand_ins.bank.parameters():
                if parameter.requires_grad:  # small, and what is small is trained in float32
                    parameter.data = parameter.data.float()
            self._beside = [self._adapted(place) for place in self._kept]
        self._stand_ins.install()
        for place, module in zip(self._kept, self._beside, strict=True):
            replace(self._model, place.name, module)

    def _adapted(self, place: Place) -> AdaptedLinear:
        """Return a layer with an adapter beside it that does nothing yet: as LoRA begins."""
        layer: Any = place.module
        rank, like = self._knobs.rank, next(self._model.parameters())
        down = torch.empty(rank, layer.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        up = torch.zeros(layer.out_features, rank)
        return AdaptedLinear(layer, up.to(like), down.to(like), self._knobs.alpha / rank)

    def phases(self) -> Sequence[Sequence[nn.Parameter]]:
        others = [
            p for place in self._own if isinstance(place.module, Compressed) for p in place.module.factors()
        ]
        for module in self._beside:
            others += [module.up, module.down] if self._kind.is_trained("lora_A") else [module.up]
        names = [
            (name, parameter)
            for name, parameter in self._stand_ins.bank.named_parameters()
            if parameter.requires_grad and self._kind.is_trained(name)
        ]
        if self._knobs.order == "together":
            return [[*others, *(parameter for _, parameter in names)]]
        right = [parameter for name, parameter in names if f"_{RIGHT}." in name]
        left = [parameter for name, parameter in names if f"_{RIGHT}." not in name]
        return [right, [*others, *left]]

    def penalty(self) -> Tensor | None:
        return self._kind.penalty(self._tuner) if self._tuner else None

    def after_step(self, step: int) -> None:
        if self._tuner:
            self._kind.after_step(self._tuner, step)

    def snapshot(self) -> Snapshot:
        return self._kind.snapshot(self._tuner) if self._tuner else Snapshot()

    def take_up(self, snapshot: Snapshot) -> None:
        if self._tuner:
            self._kind.take_up(self._tuner, snapshot)

    def finish(self) -> None:
        self._stand_ins.put_learnt(self._merged_weight)

    def _merged_weight(self, key: str) -> Tensor:
        part: Any = self._stand_ins.bank[key]
        base = part.get_base_layer()
        base.weight.data = base.weight.data.clone()  # its memory is the model's
        part.merge()
        weight: Tensor = base.weight.data
        return weight

    def undo(self) -> None:
        self._stand_ins.remove()
        for module in self._beside:  # the plan counts them, so they stay, and do nothing
            nn.init.zeros_(module.up)
            nn.init.zeros_(module.down)  # zero times NaN would be NaN
