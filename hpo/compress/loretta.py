"""LoRETTA: adapters whose two matrices are tensor trains, a hundred times fewer weights to train than LoRA's.

peft has none, so the adapters are ours. Letters: O output features, I input features, K rank, B
everything before the last dimension of x.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from hpo.compress.adapted_layers import GONE, MERGED, StandIns, places
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.loretta_math import bonds_of, contracted, drawn_cores
from hpo.compress.method import Healed, Healing, Patient
from hpo.compress.mpo_sites import balanced_sites
from hpo.compress.pausing import run_out
from hpo.compress.plan import HealPlan
from hpo.compress.recipe import Knobs
from hpo.compress.teaching import Treatment
from hpo.compress.treatment import treating
from hpo.errors import Unsupported


class LorettaKnobs(HealKnobs):
    """How to train, and the size and place of the adapters."""

    learning_rate: float = Field(default=1e-2, gt=0, lt=1)
    """Peak of the schedule; few weights bear bold steps."""
    rank: int = Field(default=8, ge=1, le=4096)
    alpha: int = Field(default=16, ge=1, le=10_000)
    """The adapter's product counts ``alpha / rank`` times."""
    tt_rank: int = Field(default=5, ge=1, le=1024)
    """Bond dimension of the tensor trains, clipped to what a cut can carry."""
    sites: int = Field(default=3, ge=1, le=8)
    """Factors that the features of a layer are split into, as equal as they get."""
    layers: Literal["all", "attention", "mlp"] = "all"
    """Which layers of the blocks have adapters."""


class TensorTrainAdapter(nn.Module):
    """``base(x) + scale * B (A x)``: A (K, I) and B (O, K), each a train of small cores.

    The last core of B is zero at first, so that the adapter does nothing yet.
    """

    def __init__(self, base: nn.Linear, knobs: LorettaKnobs, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self._scale = knobs.alpha / knobs.rank
        ins = (*balanced_sites(base.in_features, knobs.sites), knobs.rank)
        outs = (knobs.rank, *balanced_sites(base.out_features, knobs.sites))
        first = drawn_cores(ins, bonds_of(ins, knobs.tt_rank), 1 / base.in_features, generator)
        second = drawn_cores(outs, bonds_of(outs, knobs.tt_rank), 1 / knobs.rank, generator)
        second[-1].zero_()
        device = base.weight.device
        self.first = nn.ParameterList([core.to(device) for core in first])
        self.second = nn.ParameterList([core.to(device) for core in second])

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return A (K, I) and B (O, K)."""
        first_IK = contracted(list(self.first)).reshape(self.base.in_features, -1)
        second_KO = contracted(list(self.second)).reshape(-1, self.base.out_features)
        return first_IK.T, second_KO.T

    def forward(self, x_BI: Tensor) -> Tensor:
        first_KI, second_OK = self.factors()
        added_BO = functional.linear(functional.linear(x_BI.to(first_KI.dtype), first_KI), second_OK)
        y_BO: Tensor = self.base(x_BI)
        return y_BO + (self._scale * added_BO).to(y_BO.dtype)

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Return W with the adapter added, shape (O, I), float32."""
        first_KI, second_OK = self.factors()
        return self.base.weight.float() + self._scale * second_OK @ first_KI


class Loretta:
    """Low-rank adapters in tensor-train form, merged after training.

    Source: Yang et al. 2024, arXiv:2402.11417 (its variant that reparametrises the adapters' matrices).
    """

    name: ClassVar[str] = "loretta"
    stage: ClassVar[Literal["heal"]] = "heal"
    summary: ClassVar[str] = "low-rank adapters that are tensor trains themselves, merged after training"
    paper: ClassVar[str] = "LoRETTA, arXiv:2402.11417"
    knob_type: ClassVar[type[Knobs]] = LorettaKnobs

    def plan(self, knobs: Knobs, layers: Sequence[LayerPlan]) -> HealPlan | None:
        assert isinstance(knobs, LorettaKnobs)
        for kind in {layer.kind for layer in layers} - MERGED - GONE:
            raise Unsupported(
                f"loretta: adapters cannot be merged into layers of the kind {kind}", "use heal: fine_tune"
            )
        return HealPlan(self.name, knobs) if knobs.steps else None

    def heal(self, patient: Patient, plan: HealPlan, seed: int) -> Healed:
        return run_out(self.healing(patient, plan, seed))

    def healing(self, patient: Patient, plan: HealPlan, seed: int) -> Healing:
        knobs = plan.knobs
        assert isinstance(knobs, LorettaKnobs)

        def begin(patient: Patient, seed: int) -> Treatment:
            return _Trains(patient, knobs, seed)

        return treating(patient, knobs, seed, begin)


class _Trains(Treatment):
    """Tensor-train adapters on the layers of a model."""

    def __init__(self, patient: Patient, knobs: LorettaKnobs, seed: int) -> None:
        self._stand_ins = StandIns(patient.model, list(places(patient, knobs.layers)))
        generator = torch.Generator().manual_seed(seed)
        self._adapters: dict[str, TensorTrainAdapter] = {}
        for key, base in self._stand_ins.bank.items():
            assert isinstance(base, nn.Linear)
            self._adapters[key] = TensorTrainAdapter(base, knobs, generator)
        self._stand_ins.bank.update(self._adapters)
        self._stand_ins.install()

    def phases(self) -> Sequence[Sequence[nn.Parameter]]:
        return [[core for adapter in self._adapters.values() for core in (*adapter.first, *adapter.second)]]

    def finish(self) -> None:
        self._stand_ins.put_learnt(lambda key: self._adapters[key].merged())

    def undo(self) -> None:
        self._stand_ins.remove()
