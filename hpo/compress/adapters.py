"""Healing by low-rank adapters: LoRA and its relatives, through the library peft.

Adapters are put on the factors (or on W, of dense and MPO layers) and merged into them at the end, so
that ranks and costs stay as they are; or, where asked for, one is put beside each compressed layer and kept.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hpo.compress.adapted_layers import GONE, LOSSLESS, MERGED
from hpo.compress.adapting import AdapterKnobs, Adapters
from hpo.compress.corrected_plan import Corrected
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.method import Healed, Healing, Patient
from hpo.compress.pausing import run_out
from hpo.compress.plan import HealPlan
from hpo.compress.recipe import Knobs
from hpo.compress.snapshot import Snapshot
from hpo.compress.teaching import Treatment
from hpo.compress.treatment import treating
from hpo.errors import Unsupported

_ADAPTER = "default"
"""Name that peft knows the adapter by."""
_SENSITIVITIES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""By which peft's AdaLoRA moves ranks: dictionaries of its allocator, by name of a weight."""


class AdaLoraKnobs(AdapterKnobs):
    """As for the others."""

    learning_rate: float = Field(default=3e-2, gt=0, lt=1)
    """Peak of the schedule; its adapters begin small in all three factors."""


class Lora:
    """Low-rank adapters. Source: Hu et al. 2021, arXiv:2106.09685."""

    name: ClassVar[str] = "lora"
    stage: ClassVar[Literal["heal"]] = "heal"
    summary: ClassVar[str] = "train low-rank adapters on the factors, then merge or keep them"
    paper: ClassVar[str] = "LoRA, arXiv:2106.09685"
    knob_type: ClassVar[type[Knobs]] = AdapterKnobs
    can_stay: ClassVar[bool] = True
    """Whether it makes adapters whose size a plan knows and that can stand beside any layer."""

    def plan(self, knobs: Knobs, layers: Sequence[LayerPlan]) -> HealPlan | None:
        assert isinstance(knobs, AdapterKnobs)
        self.check(knobs, layers)
        if not knobs.steps:
            return None
        if knobs.adapter == "merged":
            return HealPlan(self.name, knobs)
        beside = [layer for layer in layers if layer.kind not in LOSSLESS | GONE]
        added = knobs.rank * sum(layer.in_features + layer.out_features for layer in beside)
        return HealPlan(self.name, knobs, kept_parameters=added, kept_macs_per_token=added)

    def check(self, knobs: AdapterKnobs, layers: Sequence[LayerPlan]) -> None:
        """Refuse knobs that this kind of adapter has no answer to.

        Raises:
            Unsupported: naming the knob and why.
        """
        kept = knobs.adapter == "kept"
        if kept and not self.can_stay:
            raise Unsupported(
                f"{self.name}: heal.adapter=kept: what it leaves is known only after training, or scales "
                "the layer itself",
                "use merged, or heal: lora",
            )
        if kept and (knobs.layers != "all" or knobs.order != "together"):
            raise Unsupported(
                f"{self.name}: heal.adapter=kept with heal.layers={knobs.layers}, heal.order={knobs.order}",
                "kept adapters stand on all layers and train together",
            )
        if not kept:
            self._check_merged(layers)

    def _check_merged(self, layers: Sequence[LayerPlan]) -> None:
        for kind in {layer.kind for layer in layers} - {*MERGED, *GONE, "corrected"}:
            raise Unsupported(
                f"{self.name}: adapters cannot be merged into layers of the kind {kind}",
                "use adapter: kept, or heal: fine_tune",
            )
        if layers and not any(layer.kind in MERGED or _is_corrected(layer) for layer in layers):
            raise Unsupported(
                f"{self.name}: no layer has a correction to train, and none can take a merged adapter",
                "use adapter: kept, or give the layers a correction of rank 1 or more",
            )

    def heal(self, patient: Patient, plan: HealPlan, seed: int) -> Healed:
        return run_out(self.healing(patient, plan, seed))

    def healing(self, patient: Patient, plan: HealPlan, seed: int) -> Healing:
        knobs = plan.knobs
        assert isinstance(knobs, AdapterKnobs)

        def begin(patient: Patient, seed: int) -> Treatment:
            return Adapters(self, patient, knobs, seed)

        return treating(patient, knobs, seed, begin)

    def tuner(self, bank: nn.ModuleDict, knobs: AdapterKnobs) -> Any:
        """Put adapters on all linear layers of `bank`; return peft's model of it."""
        from peft import LoraConfig, LoraModel  # seconds, and needed for healing with adapters only

        config = LoraConfig(r=knobs.rank, lora_alpha=knobs.alpha, target_modules=list(bank), **self.options())
        return LoraModel(bank, config, _ADAPTER)

    def options(self) -> dict[str, Any]:
        """Return what peft's configuration has beside rank, alpha and places."""
        return {}

    def is_trained(self, parameter: str) -> bool:
        """Whether a parameter of an adapter is trained, by its name in peft."""
        return True

    def penalty(self, tuner: Any) -> Tensor | None:
        return None

    def after_step(self, tuner: Any, step: int) -> None:
        """Called after each step, from 0."""

    def snapshot(self, tuner: Any) -> Snapshot:
        return Snapshot()

    def take_up(self, tuner: Any, snapshot: Snapshot) -> None:
        pass


class LoraFa(Lora):
    """LoRA whose matrices next to the input stay as drawn. Source: Zhang et al. 2023, arXiv:2308.03303."""

    name: ClassVar[str] = "lora_fa"
    summary: ClassVar[str] = "LoRA with its first matrix frozen, so that its inputs need not be kept"
    paper: ClassVar[str] = "LoRA-FA, arXiv:2308.03303"

    def is_trained(self, parameter: str) -> bool:
        return "lora_A" not in parameter


class Dora(Lora):
    """LoRA for the direction of each row, and its length by itself.

    Source: Liu et al. 2024, arXiv:2402.09353.
    """

    name: ClassVar[str] = "dora"
    summary: ClassVar[str] = "LoRA on the direction of weights, their magnitude trained by itself"
    paper: ClassVar[str] = "DoRA, arXiv:2402.09353"
    can_stay: ClassVar[bool] = False

    def options(self) -> dict[str, Any]:
        return {"use_dora": True}


class AdaLora(Lora):
    """Adapters in the form of an SVD, whose ranks go where the loss is sensitive: half more than `rank` at
    first, `rank` on average from half of the steps on.

    Source: Zhang et al. 2023, arXiv:2303.10512.
    """

    name: ClassVar[str] = "adalora"
    summary: ClassVar[str] = "LoRA whose ranks move to the layers where the loss is most sensitive"
    paper: ClassVar[str] = "AdaLoRA, arXiv:2303.10512"
    knob_type: ClassVar[type[Knobs]] = AdaLoraKnobs
    can_stay: ClassVar[bool] = False
    least_steps: ClassVar[int] = 4
    orthogonality: ClassVar[float] = 0.1
    """Weight of the penalty on the singular vectors."""

    def check(self, knobs: AdapterKnobs, layers: Sequence[LayerPlan]) -> None:
        super().check(knobs, layers)
        if 0 < knobs.steps < self.least_steps:
            raise Unsupported(
                f"adalora: heal.steps={knobs.steps} leaves no step to move ranks in",
                f"allowed: 0, or {self.least_steps} and more",
            )
        if knobs.optimiser == "mezo" or knobs.order != "together" or knobs.patience:
            raise Unsupported(
                f"adalora: heal.optimiser={knobs.optimiser}, heal.order={knobs.order}, "
                f"heal.patience={knobs.patience}: ranks move by the gradients of all adapters, to a "
                "schedule that must run its length",
                "use adamw, together and 0, or heal: lora",
            )

    def tuner(self, bank: nn.ModuleDict, knobs: AdapterKnobs) -> Any:
        from peft import AdaLoraConfig, AdaLoraModel  # as above

        first = math.ceil(1.5 * knobs.rank)
        config = AdaLoraConfig(
            init_r=first,
            target_r=knobs.rank,
            lora_alpha=knobs.alpha,
            target_modules=list(bank),
            total_step=knobs.steps,
            tinit=knobs.steps // 10,
            tfinal=knobs.steps // 2,
            beta1=0.85,
            beta2=0.85,
            orth_reg_weight=self.orthogonality,
        )
        return AdaLoraModel(bank, config, _ADAPTER)

    def penalty(self, tuner: Any) -> Tensor | None:
        """Mean distance of the singular vectors from orthonormal ones, over all adapters."""
        distances = []
        for name, parameter in tuner.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                gram = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
                eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
                distances.append(torch.linalg.matrix_norm(gram - eye))
        return self.orthogonality * torch.stack(distances).mean()

    def after_step(self, tuner: Any, step: int) -> None:
        tuner.update_and_allocate(step + 1)

    def snapshot(self, tuner: Any) -> Snapshot:
        """Return how sensitive the loss was to each weight, how sure that is, and which ranks are left."""
        found = {name: getattr(tuner.rankallocator, name) for name in _SENSITIVITIES}
        tensors = {f"{name}|{weight}": t for name, held in found.items() for weight, t in held.items()}
        return Snapshot(tensors, {"ranks": tuner.peft_config[_ADAPTER].rank_pattern})

    def take_up(self, tuner: Any, snapshot: Snapshot) -> None:
        device = next(tuner.parameters()).device
        for name in _SENSITIVITIES:
            begin = f"{name}|"
            held = {
                key.removeprefix(begin): tensor.to(device)
                for key, tensor in snapshot.tensors.items()
                if key.startswith(begin)
            }
            setattr(tuner.rankallocator, name, held)
        tuner.peft_config[_ADAPTER].rank_pattern = snapshot.fact("ranks")


def _is_corrected(layer: LayerPlan) -> bool:
    """Whether a layer in few bits has a correction, which then is its adapter."""
    return isinstance(layer, Corrected) and layer.rank > 0 and layer.factor_grid is None
