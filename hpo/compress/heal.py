"""Healing by training the factors themselves, on calibration text only."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.method import Healed, Healing, Patient
from hpo.compress.pausing import run_out
from hpo.compress.plan import HealPlan
from hpo.compress.recipe import Knobs
from hpo.compress.treatment import FullFactors, treating
from hpo.errors import Unsupported


class FineTuneKnobs(HealKnobs):
    """How to train, by default towards the text."""


class DistilKnobs(HealKnobs):
    """How to train, by default towards the dense model's distribution."""

    loss: Literal["distil", "hidden", "local"] = Field(default="distil")


class FineTune:
    """AdamW or MeZO on the factors, with cross-entropy on the calibration text or another loss."""

    name: ClassVar[str] = "fine_tune"
    stage: ClassVar[Literal["heal"]] = "heal"
    summary: ClassVar[str] = "fine-tune the factors with cross-entropy on calibration text"
    paper: ClassVar[str] = "Loshchilov and Hutter 2019 (AdamW), arXiv:1711.05101"
    knob_type: ClassVar[type[Knobs]] = FineTuneKnobs

    def plan(self, knobs: Knobs, layers: Sequence[LayerPlan]) -> HealPlan | None:
        assert isinstance(knobs, HealKnobs)
        if knobs.loss == "local" and layers and all(layer.kind == "dense" for layer in layers):
            raise Unsupported(
                f"{self.name}: heal.loss=local matches the blocks, and no layer of a block is compressed",
                "use the loss distil",
            )
        return HealPlan(self.name, knobs) if knobs.steps else None

    def heal(self, patient: Patient, plan: HealPlan, seed: int) -> Healed:
        return run_out(self.healing(patient, plan, seed))

    def healing(self, patient: Patient, plan: HealPlan, seed: int) -> Healing:
        assert isinstance(plan.knobs, HealKnobs)
        return treating(patient, plan.knobs, seed, FullFactors)


class Distil(FineTune):
    """AdamW or MeZO on the factors towards the dense model: its distribution (KL divergence of the
    logits), that and its hidden states, or its blocks one by one.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """

    name: ClassVar[str] = "distil"
    summary: ClassVar[str] = "fine-tune the factors towards the dense model's distribution or hidden states"
    paper: ClassVar[str] = "Hinton et al. 2015, arXiv:1503.02531"
    knob_type: ClassVar[type[Knobs]] = DistilKnobs
