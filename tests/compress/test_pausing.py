"""Healing in parts: it is the same healing, what is seen at the pause is true, what is given up is gone."""

import copy
import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from hpo import registry
from hpo.compress import treatment
from hpo.compress.heal import FineTune
from hpo.compress.losses import CrossEntropy
from hpo.compress.method import Checked, Healed, Healer, Healing, Patient, PausableHealer
from hpo.compress.pausing import SHORT_STEPS, healing_of, pausing_once, run_out
from hpo.compress.plan import HealPlan
from hpo.compress.recipe import Knobs, methods
from hpo.compress.surgery import shared_copy
from hpo.compress.training import batches, split
from hpo.compress.treatment import FullFactors, balance, factor_parameters, treating
from hpo.errors import NonFinite
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress import small
from tests.compress.healing import FACTORISED, heal, held_out_loss, knobs, patient, taught
from tests.compress.test_healers import FEW_BITS

SPARSE: dict[str, Value] = {"sparsify": "magnitude", "sparsify.sparsity": 0.7}
CACHED: dict[str, Value] = {**FACTORISED["mpo"], "factorise.contraction": "cached"}
LOW_RANK = FACTORISED["low_rank"]
KEPT: tuple[dict[str, Any], dict[str, Value]] = ({"heal": "lora", "rank": 3, "adapter": "kept"}, LOW_RANK)
RESTORED: dict[str, tuple[dict[str, Any], dict[str, Value]]] = {
    "fine_tune": ({"heal": "fine_tune"}, LOW_RANK),
    "mezo": ({"heal": "fine_tune", "optimiser": "mezo", "learning_rate": 4e-4}, LOW_RANK),
    "patience": ({"heal": "fine_tune", "patience": 2, "check_every": 2}, CACHED),
    "zeros": ({"heal": "fine_tune"}, SPARSE),
    "distil": ({"heal": "distil", "loss": "hidden"}, LOW_RANK),
    "distil, local": ({"heal": "distil", "loss": "local"}, CACHED),
    "lora": ({"heal": "lora", "rank": 3}, LOW_RANK),
    "lora, tensor trains": ({"heal": "lora", "rank": 3}, CACHED),
    "lora, right, pause, left": ({"heal": "lora", "rank": 3, "order": "right_then_left"}, LOW_RANK),
    "lora, right, left, pause": ({"heal": "lora", "order": "right_then_left", "steps": 6}, LOW_RANK),
    "lora_fa": ({"heal": "lora_fa", "rank": 3}, LOW_RANK),
    "dora": ({"heal": "dora", "rank": 3}, LOW_RANK),
    "adalora": ({"heal": "adalora", "rank": 3}, LOW_RANK),
    "loretta": ({"heal": "loretta", "rank": 4, "tt_rank": 3, "sites": 2}, LOW_RANK),
    "straight_through": ({"heal": "straight_through"}, FEW_BITS),
}
"""Those that put every module of the model back when they are given up."""
CASES = {**RESTORED, "lora, kept": KEPT}


@pytest.fixture
def dense() -> DenseModel:
    return taught()


def sick(dense: DenseModel, healing: dict[str, Any], factorised: dict[str, Value] = LOW_RANK) -> Patient:
    return patient(dense, {"steps": 8, "learning_rate": 3e-3, **healing}, factorised)


def begun(found: Patient) -> Healing:
    plan = found.plan.heal
    assert plan is not None
    return healing_of(registry.load("method", plan.method)(), found, plan, 1)


def pausing_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treatment, "SHORT_STEPS", steps)


def state(model: nn.Module) -> dict[str, Tensor]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def is_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def hooks(model: nn.Module) -> int:
    return sum(
        len(found)
        for module in model.modules()
        for found in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    )


# The same healing


@pytest.mark.parametrize(("healing", "factorised"), CASES.values(), ids=CASES)
def test_a_healing_that_was_looked_at_is_the_one_that_was_not(
    healing: dict[str, Any], factorised: dict[str, Value], dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pausing_after(1000, monkeypatch)
    whole = sick(dense, healing, factorised)
    expected = heal(whole)

    pausing_after(4, monkeypatch)
    found = sick(dense, healing, factorised)
    run = begun(found)
    assert next(run).steps == 4
    heal(sick(dense, {"heal": "distil", "steps": 1, "loss": "hidden"}))  # another one's goes on meanwhile
    torch.manual_seed(123)
    assert run_out(run) == expected
    assert is_same(state(found.model), state(whole.model))


def test_half_precision_is_paused_without_a_trace(dense: DenseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for steps in (1000, 4):
        pausing_after(steps, monkeypatch)
        found = sick(dense, {"heal": "fine_tune"})
        found = replace(found, model=copy.deepcopy(found.model).bfloat16())
        outcomes.append((heal(found), state(found.model)))
    assert outcomes[0][0] == outcomes[1][0]
    assert is_same(outcomes[0][1], outcomes[1][1])


# When it pauses


def test_a_healing_of_up_to_25_steps_does_not_pause_and_a_longer_one_does_once(dense: DenseModel) -> None:
    assert SHORT_STEPS == 25
    pauses = {steps: list(begun(sick(dense, {"heal": "fine_tune", "steps": steps}))) for steps in (25, 26)}
    assert pauses[25] == []
    assert [checked.steps for checked in pauses[26]] == [25]


def test_a_healing_that_ends_before_its_time_does_not_pause(dense: DenseModel) -> None:
    # far too bold: the best check is an early one, and later ones are worse
    bold = {"schedule": "constant", "learning_rate": 0.3, "steps": 60, "patience": 2, "check_every": 2}
    run = begun(sick(dense, {"heal": "fine_tune", **bold}, FACTORISED["mild"]))
    with pytest.raises(StopIteration) as end:
        next(run)
    assert 0 < end.value.value.steps < 25


def test_a_broken_model_is_refused_when_healing_begins(dense: DenseModel) -> None:
    found = sick(dense, {"heal": "fine_tune", "steps": 40})
    with torch.no_grad():
        factor_parameters(found.model)[0].fill_(math.nan)
    run = begun(found)
    with pytest.raises(NonFinite, match="factor"):
        next(run)


# What is seen


def test_the_loss_seen_is_that_of_25_steps_taken_by_hand(dense: DenseModel) -> None:
    healing = {"heal": "fine_tune", "steps": 40, "schedule": "constant", "learning_rate": 2e-3}
    checked = next(begun(sick(dense, healing)))

    found = sick(dense, healing)
    balance(found.model)
    factors = [factor.requires_grad_(True) for factor in factor_parameters(found.model)]
    adamw = torch.optim.AdamW(factors, weight_decay=0.0, betas=(0.9, 0.95))
    loss = CrossEntropy(found.model)
    drawn = batches(split(found.materials.calibration)[0], 4, 1, torch.device("cpu"))
    for step in range(25):
        adamw.zero_grad()
        loss(*next(drawn)).backward()
        nn.utils.clip_grad_norm_(factors, 1.0)
        adamw.param_groups[0]["lr"] = 2e-3 * min((step + 1) / 4, 1)  # a tenth of 40 steps to rise in
        adamw.step()
    assert checked.steps == 25
    assert checked.loss == pytest.approx(held_out_loss(found), rel=1e-6)
    assert checked.loss < 0.9 * held_out_loss(sick(dense, healing))


class BreaksAtLast(FullFactors):
    """Breaks the model after its fourth step."""

    def __init__(self, patient: Patient, seed: int) -> None:
        super().__init__(patient, seed)
        self._first = factor_parameters(patient.model)[0]

    def after_step(self, step: int) -> None:
        if step == 3:
            self._first.data.fill_(math.nan)


def test_the_loss_of_a_model_that_broke_is_infinite(
    dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pausing_after(4, monkeypatch)
    found = sick(dense, {"heal": "fine_tune"})
    before = held_out_loss(found)
    run = treating(found, knobs(steps=8), 1, BreaksAtLast)
    assert next(run) == Checked(4, math.inf)
    assert run_out(run).after == math.inf
    assert held_out_loss(found) == pytest.approx(before, rel=1e-4)


def test_looking_leaves_every_module_in_its_mode_and_the_random_state_alone(
    dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that draws whenever it is measured: before the first step, and at the pause."""
    pausing_after(4, monkeypatch)
    found = sick(dense, {"heal": "fine_tune"})
    states: list[Tensor] = []

    def draw(*_: Any) -> None:
        if not torch.is_grad_enabled():
            torch.rand(3)
            states.append(torch.get_rng_state())

    class Switched(FullFactors):
        def phases(self) -> Sequence[Sequence[nn.Parameter]]:
            inner.train()
            return super().phases()

    inner = found.model.get_submodule("model.layers.0")
    inner.register_forward_hook(draw)
    next(treating(found, knobs(steps=8), 1, Switched))
    assert len(states) == 2
    assert torch.equal(torch.get_rng_state(), states[0])
    assert {module.training for module in inner.modules()} == {True}
    assert not found.model.get_submodule("model.layers.1").training
    assert not found.model.training


def test_what_is_seen_is_a_number_of_steps_and_a_loss() -> None:
    with pytest.raises(ValueError, match="0 steps"):
        Checked(0, 1.0)
    with pytest.raises(ValueError, match="NaN"):
        Checked(25, math.nan)


# Given up


@pytest.mark.parametrize(("healing", "factorised"), CASES.values(), ids=CASES)
def test_what_is_given_up_is_frozen_and_computes_what_it_did(
    healing: dict[str, Any], factorised: dict[str, Value], dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pausing_after(4, monkeypatch)
    found = sick(dense, healing, factorised)
    before, weights = small.logits(found.model), state(dense.module)
    run = begun(found)
    next(run)
    assert any(parameter.requires_grad for parameter in found.model.parameters())
    assert not torch.equal(small.logits(found.model), before)
    run.close()
    for model in (found.model, dense.module):
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
        assert hooks(model) == 0
    assert torch.allclose(small.logits(found.model), before, atol=1e-3)
    assert is_same(state(dense.module), weights)
    with pytest.raises(StopIteration):
        next(run)


@pytest.mark.parametrize(("healing", "factorised"), RESTORED.values(), ids=RESTORED)
def test_what_is_given_up_is_made_of_what_it_was(
    healing: dict[str, Any], factorised: dict[str, Value], dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pausing_after(4, monkeypatch)
    found, twin = sick(dense, healing, factorised), sick(dense, healing, factorised)
    modules = dict(found.model.named_modules())
    contractions = [getattr(module, "contraction", None) for module in modules.values()]
    run = begun(found)
    next(run)
    run.close()
    assert dict(found.model.named_modules()) == modules
    assert not any(module.training for module in modules.values())
    assert [getattr(module, "contraction", None) for module in modules.values()] == contractions
    balance(twin.model)
    assert is_same(state(found.model), state(twin.model))


def test_a_healing_that_never_began_is_given_up_without_a_trace(dense: DenseModel) -> None:
    found = sick(dense, {"heal": "fine_tune", "steps": 40})
    before = state(found.model)
    begun(found).close()
    assert is_same(state(found.model), before)


# Healers that pause and healers that do not


class Stranger:
    """Heals by nothing and has one method for it, as the page for strangers says."""

    stage: ClassVar[Any] = "heal"
    summary: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    knob_type: ClassVar[type[Knobs]] = FineTune.knob_type

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def plan(self, knobs: Knobs, layers: Sequence[Any]) -> HealPlan | None:
        raise NotImplementedError

    def heal(self, patient: Patient, plan: HealPlan, seed: int) -> Healed:
        self.seeds.append(seed)
        return Healed(2.0, 1.0, 1000)


def test_a_healer_that_cannot_pause_heals_in_one(dense: DenseModel) -> None:
    stranger = Stranger()
    healer: Healer = stranger
    found = sick(dense, {"heal": "fine_tune"})
    assert found.plan.heal is not None
    run = healing_of(healer, found, found.plan.heal, 7)
    assert stranger.seeds == []
    assert run_out(run) == Healed(2.0, 1.0, 1000)
    assert stranger.seeds == [7]
    assert list(healing_of(healer, found, found.plan.heal, 8)) == []


def test_every_healer_of_ours_pauses_but_the_one_whose_run_serves_many() -> None:
    healers = {name: registry.load("method", name)() for name in methods("heal")}
    assert {name for name, healer in healers.items() if not isinstance(healer, PausableHealer)} == {"nested"}


def test_a_model_without_factors_has_nothing_to_pause_for(dense: DenseModel) -> None:
    found = sick(dense, {"heal": "fine_tune", "steps": 40})
    whole = replace(found, model=shared_copy(dense.module).eval())
    assert list(begun(whole)) == []


# Runs


def counted(steps: int, left: list[str]) -> Generator[int, None, str]:
    try:
        yield from range(1, steps + 1)
    finally:
        left.append("left")
    return "done"


def test_a_run_pauses_after_its_step_and_returns_what_it_returns() -> None:
    looks = iter([Checked(3, 0.5)])
    run = pausing_once(counted(5, []), 3, lambda: next(looks))
    assert next(run) == Checked(3, 0.5)
    assert run_out(run) == "done"
    assert run_out(pausing_once(counted(2, []), 3, lambda: next(looks))) == "done"


def test_a_run_that_is_given_up_is_left_at_once() -> None:
    left: list[str] = []
    inner = counted(5, left)  # held here too, so that it does not end for want of an owner
    run = pausing_once(inner, 3, lambda: Checked(3, 0.5))
    next(run)
    assert left == []
    run.close()
    assert left == ["left"]
