"""Nested healing: one run whose factors serve every rank, by slicing.

Trained once at the largest keep ratio, with a share of the ranks drawn anew in every step, and kept in the
cache; a trial with a lower keep ratio takes its first ranks. Trials that share a run say so.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from hpo import registry
from hpo.compress import surgery
from hpo.compress.architecture import break_even_rank
from hpo.compress.composed_plan import Composed
from hpo.compress.curve_recorder import CurveRecorder
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.layer_plan import LayerPlan, LowRank
from hpo.compress.layers import LowRankLinear
from hpo.compress.losses import loss_of
from hpo.compress.method import Healed, Patient
from hpo.compress.nested_math import drawn_shares, parsed_shares, rank_at
from hpo.compress.pausing import run_out
from hpo.compress.plan import Change, HealPlan, Plan
from hpo.compress.recipe import Knobs
from hpo.compress.residual import evened
from hpo.compress.snapshot import Snapshot
from hpo.compress.training import Course, Trained, Training, batches
from hpo.compress.treatment import balance, check_finite, factor_parameters, loss_or_infinity, put_back, texts
from hpo.compress.warm import healed_directory
from hpo.errors import Unsupported
from hpo.healing_curve import HealingCurve
from hpo.measure.quality import mean_nll
from hpo.models.cache import build_once

_FACTORS, _RECORD = "factors.safetensors", "healing.json"
_UNEVEN = 1.5
"""Ranks that a layer may be off the uniform allocation, from rounding."""


class NestedKnobs(HealKnobs):
    """How to train, and which ranks are to work."""

    shares: str = "0.5,0.75,1.0"
    """Shares of the largest ranks that are trained, 1 among them."""
    top_keep_ratio: float = Field(default=0.8, gt=0, lt=1)
    """Keep ratio of the shared run; no trial that shares it may keep more."""

    @field_validator("shares")
    @classmethod
    def _parsed(cls, text: str) -> str:
        parsed_shares(text)
        return text


class Nested:
    """Factors trained so that a prefix of their ranks works too; one run serves many trials.

    Source: DyLoRA, Valipour et al. 2022, arXiv:2210.07558.
    """

    name: ClassVar[str] = "nested"
    stage: ClassVar[Literal["heal"]] = "heal"
    summary: ClassVar[str] = "train low-rank factors once for all ranks; trials slice them"
    paper: ClassVar[str] = "DyLoRA, arXiv:2210.07558"
    knob_type: ClassVar[type[Knobs]] = NestedKnobs

    def plan(self, knobs: Knobs, layers: Sequence[LayerPlan]) -> HealPlan | None:
        assert isinstance(knobs, NestedKnobs)
        _check_uniform(layers)
        for layer in layers:
            if isinstance(layer, LowRank) and layer.rank > largest_rank(layer, knobs):
                raise Unsupported(
                    f"nested: rank {layer.rank} of a layer of {layer.out_features} x {layer.in_features} "
                    f"is above the shared run's {largest_rank(layer, knobs)}",
                    "raise heal.top_keep_ratio to the largest keep ratio of the search",
                )
        has_ranks = not layers or any(isinstance(layer, LowRank) for layer in layers)
        return HealPlan(self.name, knobs) if knobs.steps and has_ranks else None

    def heal(self, patient: Patient, plan: HealPlan, seed: int) -> Healed:
        """As `Healer.heal`. The seed is the shared run's own, so that trials do share it."""
        check_finite(factor_parameters(patient.model))
        run = SharedRun(patient, plan)
        return run.given_to(patient.model)


def largest_rank(layer: LowRank, knobs: NestedKnobs) -> int:
    """Return the rank that a layer has in the shared run."""
    outs, ins = layer.out_features, layer.in_features
    return min(math.ceil(knobs.top_keep_ratio * outs * ins / (outs + ins)), break_even_rank(outs, ins))


def _check_uniform(layers: Sequence[LayerPlan]) -> None:
    """Refuse what one run cannot serve at all ranks.

    Raises:
        Unsupported: a layer is not of low rank, or does not keep the same share as the others.
    """
    kinds = {"pruned" if isinstance(layer, Composed) else layer.kind for layer in layers}
    for kind in kinds - {"dense", "low_rank"}:
        raise Unsupported(f"nested: layers of the kind {kind} have no ranks to slice", "use heal: fine_tune")
    ranked = [layer for layer in layers if isinstance(layer, LowRank)]
    dense = sum(layer.out_features * layer.in_features for layer in ranked)
    keep = sum(layer.costs.parameters for layer in ranked) / max(dense, 1)
    for layer in ranked:
        outs, ins = layer.out_features, layer.in_features
        uniform = keep * outs * ins / (outs + ins)
        if abs(layer.rank - uniform) > _UNEVEN:
            raise Unsupported(
                f"nested: rank {layer.rank} of a layer of {outs} x {ins}, where keeping the same share "
                f"everywhere gives {uniform:.1f}",
                "use allocation: uniform without multiples or multipliers, or heal: fine_tune",
            )


@dataclass(frozen=True)
class SharedRun:
    """The healing at the largest ranks that a trial has a share in."""

    patient: Patient
    plan: HealPlan

    @property
    def knobs(self) -> NestedKnobs:
        assert isinstance(self.plan.knobs, NestedKnobs)
        return self.plan.knobs

    @cached_property
    def largest(self) -> Plan:
        """The trial's plan with the largest ranks; the same for all trials that share the run."""
        plan = self.patient.plan
        changes = tuple(
            self._widened(change) if change.stage == "factorise" else change
            for change in plan.changes
            if not change.is_healed
        )
        layers = next((change.plan.layers for change in changes if change.stage == "factorise"), plan.layers)
        return replace(plan, layers=layers, changes=changes, heal=None)

    def _widened(self, change: Change) -> Change:
        layers = tuple(
            replace(layer, rank=largest_rank(layer, self.knobs)) if isinstance(layer, LowRank) else layer
            for layer in change.plan.layers
        )
        return replace(change, plan=replace(change.plan, layers=layers))

    @cached_property
    def key(self) -> str:
        """Content of the run: everything but the trial's own ranks."""
        content = f"{self.largest.hash}|{self.plan.key}"
        return f"nested-{hashlib.sha256(content.encode()).hexdigest()[:14]}"

    def given_to(self, model: nn.Module) -> Healed:
        """Put the first ranks of the run's factors into a trial's model, if that is better than its own."""
        _, held_out = texts(self.patient, self.knobs)
        directory = build_once(healed_directory(self.patient.materials.store.key, self.key), self._build)
        record = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
        factors = factor_parameters(model)
        balance(model)
        before = mean_nll(model, held_out)
        saved = [factor.detach().clone() for factor in factors]
        _slice_into(model, load_file(directory / _FACTORS))
        after = loss_or_infinity(model, held_out) if record["is_sound"] else math.inf
        curve = _shared_curve(record, before, after)
        healed = Healed(before, after, record["steps"], shared=self.key, curve=curve)
        if not healed.kept_after:
            put_back(factors, saved)
        return healed

    def _build(self, directory: Path) -> None:
        materials = self.patient.materials
        model = surgery.shared_copy(materials.dense)
        for change in self.largest.changes:
            registry.load("method", change.method)().apply(model, change.plan, materials)
        recorder = CurveRecorder(self.knobs.loss, self.knobs.steps)
        trained = self._trained(model.eval(), recorder)
        factors = {
            f"{name}.{side}": getattr(layer, side).detach().cpu().contiguous()
            for name, layer in _low_rank_layers(model).items()
            for side in ("left", "right")
        }
        save_file(factors, directory / _FACTORS)
        record = {
            "steps": trained.steps,
            "is_sound": trained.is_sound,
            "plan": self.plan.key,
            "curve": recorder.curve.to_mapping(),
        }
        (directory / _RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")

    def _trained(self, model: nn.Module, recorder: CurveRecorder) -> Trained:
        """Train the factors of a model at the largest ranks, in place."""
        knobs, seed = self.knobs, int(self.key.removeprefix("nested-"), 16)
        layers = _low_rank_layers(model)
        parameters = [parameter for layer in layers.values() for parameter in layer.factors()]
        for layer in layers.values():  # not `balanced`, which mixes directions: a prefix must stay one
            put_back(layer.factors(), evened(layer.left.double(), layer.right.double()))
        prefixes = {name: Prefix(layer) for name, layer in layers.items()}
        shares = parsed_shares(knobs.shares)
        drawn = drawn_shares(shares, knobs.steps, seed)
        text, held_out = texts(self.patient, knobs)

        def use(share: float) -> None:
            for prefix in prefixes.values():
                prefix.rank = rank_at(share, prefix.largest)

        def check() -> float:
            return sum(_with(use, share, lambda: loss_or_infinity(model, held_out)) for share in shares)

        _replaced(model, prefixes)
        training = Training(
            Course(
                parameters=parameters,
                loss=loss_of(model, self.patient.materials.dense, knobs),
                batches=batches(text, knobs.batch, seed, parameters[0].device),
                knobs=knobs,
                steps=knobs.steps,
                seed=seed,
                check=check,
                before_step=lambda step: use(drawn[step]),
                record=recorder.step,
            )
        )
        trained = self._kept(training, recorder)
        _replaced(model, layers)
        return trained

    def _kept(self, training: Training, recorder: CurveRecorder) -> Trained:
        """Train to the end, with checkpoints of the run, which are of no use after it."""
        keeper = self.patient.keeper.beside(self.key)

        def snapshot() -> Snapshot:
            return Snapshot.joined(training=training.snapshot(), recorder=recorder.snapshot())

        def take_up(found: Snapshot) -> None:
            noted = found.part("recorder")
            training.take_up(found.part("training"))
            recorder.take_up(noted)

        keeper.take_up(take_up)
        trained = run_out(keeper.watch(training.steps(), snapshot))
        keeper.remove()
        return trained


def _shared_curve(record: Mapping[str, Any], before: float, after: float) -> HealingCurve | None:
    """Return how the shared run's training went, with a trial's own loss before and after it; None of a run
    that was kept by a version that did not write it down."""
    if "curve" not in record:
        return None
    ends = [(0, before), (int(record["steps"]), after)]
    own = tuple((step, loss) for step, loss in ends if math.isfinite(loss))
    return replace(HealingCurve.from_mapping(record["curve"]), checked=own)


class Prefix(nn.Module):
    """A low-rank layer that computes with its first `rank` ranks only."""

    def __init__(self, layer: LowRankLinear) -> None:
        super().__init__()
        self.layer = layer
        self.largest = layer.right.shape[0]
        self.rank = self.largest

    def forward(self, x_BI: Tensor) -> Tensor:
        left, right = self.layer.left[:, : self.rank], self.layer.right[: self.rank]
        return functional.linear(functional.linear(x_BI, right), left, self.layer.bias)


def _with(use: Callable[[float], None], share: float, measure: Callable[[], float]) -> float:
    use(share)
    return measure()


def _low_rank_layers(model: nn.Module) -> dict[str, LowRankLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LowRankLinear)}


def _replaced(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        surgery.replace(model, name, module)


@torch.no_grad()
def _slice_into(model: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Copy the first ranks of larger factors into the layers of a model."""
    for name, layer in _low_rank_layers(model).items():
        rank = layer.right.shape[0]
        layer.left.copy_(factors[f"{name}.left"][:, :rank])
        layer.right.copy_(factors[f"{name}.right"][:rank])
