"""The contract of every registered healer, on real (small, random) models."""

import copy
import math
from typing import Any

import pytest
import torch

from hpo import registry
from hpo.compress.method import Patient
from hpo.compress.recipe import methods, step
from hpo.compress.surgery import count_macs
from hpo.compress.treatment import factor_parameters
from hpo.errors import NonFinite, Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Value
from tests.compress import small
from tests.compress.healing import FACTORISED, heal, held_out_loss, patient, taught

KNOBS: dict[str, list[dict[str, Any]]] = {
    "fine_tune": [
        {},
        {"schedule": "linear", "batch": 8, "loss": "hidden", "temperature": 2.0},
        {"text": "generated"},
        {"patience": 2, "check_every": 4},
        {"optimiser": "mezo", "learning_rate": 4e-4, "steps": 60, "batch": 18},
    ],
    "distil": [
        {},
        {"temperature": 2.0},
        {"loss": "hidden", "hidden_weight": 3.0},
        {"loss": "local"},
        {"loss": "local", "slice_blocks": 2, "text": "generated"},
    ],
    "lora": [
        {"rank": 4},
        {"rank": 2, "layers": "attention"},
        {"rank": 4, "order": "right_then_left", "layers": "mlp"},
        {"rank": 3, "adapter": "kept"},
        {"rank": 3, "loss": "hidden", "text": "generated"},
    ],
    "lora_fa": [{"rank": 4}, {"rank": 3, "adapter": "kept"}],
    "dora": [{"rank": 4}, {"rank": 4, "order": "right_then_left"}],
    "adalora": [{"rank": 4, "learning_rate": 3e-2}],
    "loretta": [{"rank": 4, "tt_rank": 3, "sites": 2}, {"rank": 2, "tt_rank": 4, "layers": "mlp"}],
    "nested": [{"top_keep_ratio": 0.6}, {"shares": "0.6,1", "loss": "distil", "top_keep_ratio": 0.45}],
    "straight_through": [{}, {"loss": "hidden"}, {"patience": 2, "check_every": 4}],
}
FEW_BITS: dict[str, Value] = {
    "quantize": "rtn",
    "quantize.bits": 2,
    "quantize.group_size": 0,
    "quantize.correction": 0.2,
    "order": "quantize > heal",
}
"""What a healer treats that needs layers in few bits; with factors beside them."""
CASES = [(method, knobs) for method in methods("heal") for knobs in KNOBS[method]]
FIRST = [(method, KNOBS[method][0]) for method in methods("heal")]
KEPT = ("lora", {"rank": 3, "adapter": "kept"})
KNOWS_TRAINS = set(KNOBS) - {"nested", "straight_through"}
"""Those that treat tensor trains."""
ADDED = {"lora", "lora_fa", "dora", "adalora", "loretta"}
"""Those that train something beside the factors, of which a product counts alpha times."""


@pytest.fixture
def dense() -> DenseModel:
    return taught()


def sick(dense: DenseModel, method: str, knobs: dict[str, Value], kind: str = "low_rank") -> Patient:
    healing = {"heal": method, "steps": 10, "learning_rate": 3e-3, **knobs}
    return patient(dense, healing, FEW_BITS if method == "straight_through" else FACTORISED[kind])


def check_costs(found: Patient) -> None:
    plan, held, dense = found.plan, Held.by(found.model), Held.by(found.materials.dense)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - dense.buffer_bytes == plan.weight_bytes
    assert count_macs(found.model, small.CONTEXT) == plan.prefill_macs


def test_every_registered_healer_is_under_contract() -> None:
    assert set(KNOBS) == set(methods("heal"))


@pytest.mark.parametrize(("method", "knobs"), CASES)
def test_healing_lowers_the_loss_by_what_it_says_and_moves_factors_only(
    method: str, knobs: dict[str, Any], dense: DenseModel
) -> None:
    found = sick(dense, method, knobs)
    before = held_out_loss(found)
    factors = {id(parameter) for parameter in factor_parameters(found.model)}
    fixed = {n: p.clone() for n, p in found.model.named_parameters() if id(p) not in factors}
    weights = {n: p.clone() for n, p in dense.module.named_parameters()}
    healed = heal(found)
    assert healed.kept_after
    assert healed.before == pytest.approx(before, rel=1e-4)
    assert healed.after == pytest.approx(held_out_loss(found), rel=1e-6)
    assert healed.after < healed.before
    assert 0 < healed.steps <= knobs.get("steps", 10)
    check_costs(found)
    now = dict(found.model.named_parameters())
    assert fixed
    assert all(torch.equal(now[name], value) for name, value in fixed.items())
    assert all(torch.equal(p, weights[n]) for n, p in dense.module.named_parameters())
    assert not any(p.requires_grad for p in [*now.values(), *dense.module.parameters()])


@pytest.mark.parametrize(("method", "knobs"), [*(case for case in FIRST if case[0] in KNOWS_TRAINS), KEPT])
def test_tensor_trains_are_not_harmed(method: str, knobs: dict[str, Any], dense: DenseModel) -> None:
    # merging into a tensor train loses something, so there may be no gain; but never a loss
    found = sick(dense, method, knobs, "mpo")
    before = held_out_loss(found)
    heal(found)
    assert held_out_loss(found) <= before * (1 + 1e-4)
    check_costs(found)


@pytest.mark.parametrize(("method", "knobs"), [*FIRST, KEPT])
def test_a_healing_that_diverges_is_undone(method: str, knobs: dict[str, Any], dense: DenseModel) -> None:
    bold: dict[str, Value] = {"learning_rate": 0.99, "schedule": "constant", "steps": 6}
    room: dict[str, Value] = {"top_keep_ratio": 0.8} if method == "nested" else {}
    found = sick(dense, method, {**knobs, **bold, **room}, "mild")
    before = small.logits(found.model)
    healed = heal(found, alpha=10_000) if method in ADDED else heal(found)
    assert not healed.kept_after
    assert healed.after >= healed.before
    assert torch.allclose(small.logits(found.model), before, atol=1e-3)
    check_costs(found)


@pytest.mark.parametrize("method", list(KNOBS))
def test_the_same_seed_heals_alike_and_another_does_not(method: str, dense: DenseModel) -> None:
    losses = []
    for seed in (1, 1, 2):
        found = sick(dense, method, {**KNOBS[method][0], "steps": 3 if method != "adalora" else 4})
        losses.append(heal(found, seed).after)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    if method != "nested":  # its seed is that of the run it shares
        assert losses[2] != pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("method", list(KNOBS))
def test_a_broken_model_is_refused_by_name(method: str, dense: DenseModel) -> None:
    found = sick(dense, method, KNOBS[method][0])
    with torch.no_grad():
        factor_parameters(found.model)[0].fill_(math.nan)
    with pytest.raises(NonFinite, match="factor"):
        heal(found)


@pytest.mark.parametrize(("method", "knobs"), [*FIRST, KEPT])
def test_half_precision_stays_half_precision(method: str, knobs: dict[str, Any], dense: DenseModel) -> None:
    found = sick(dense, method, knobs)
    half = Patient(copy.deepcopy(found.model).bfloat16(), found.plan, found.materials)
    assert heal(half).kept_after
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("method", list(KNOBS))
def test_every_healer_plans_its_knobs_and_no_steps_are_no_plan(method: str) -> None:
    def plan(steps: int) -> Any:
        given: dict[str, Value] = {"heal": method, "heal.steps": steps, "heal.learning_rate": 2e-3}
        found = step(Candidate.of(given), "heal")
        assert found is not None
        return found.method.plan(found.knobs, ())

    assert plan(0) is None
    assert plan(7).method == method
    assert plan(7).knobs.model_dump().items() >= {"steps": 7, "learning_rate": 2e-3}.items()
    assert plan(7).key != plan(8).key
    assert registry.load("method", method).paper


@pytest.mark.parametrize(
    ("method", "knobs", "named"),
    [
        ("fine_tune", {"learning_rate": 2.0}, r"heal\.learning_rate"),
        ("fine_tune", {"loss": "huber"}, r"heal\.loss"),
        ("distil", {"loss": "cross_entropy"}, r"heal\.loss"),
        ("dora", {"adapter": "kept"}, "adapter=kept"),
        ("adalora", {"adapter": "kept"}, "adapter=kept"),
        ("lora", {"adapter": "kept", "layers": "mlp"}, "heal.layers=mlp"),
        ("adalora", {"steps": 3}, "heal.steps=3"),
        ("adalora", {"optimiser": "mezo"}, "heal.optimiser=mezo"),
        ("nested", {"shares": "0.5,2"}, "shares"),
        ("nested", {"shares": "0.5"}, "shares"),
        ("nested", {"top_keep_ratio": 0.3}, "top_keep_ratio"),
    ],
)
def test_wrong_knobs_are_refused_by_name(
    method: str, knobs: dict[str, Value], named: str, dense: DenseModel
) -> None:
    with pytest.raises(Unsupported, match=named):
        sick(dense, method, knobs)


@pytest.mark.parametrize("method", ["nested"])
def test_layers_that_a_healer_cannot_treat_are_refused_by_kind(method: str, dense: DenseModel) -> None:
    with pytest.raises(Unsupported, match="mpo"):
        sick(dense, method, {}, "mpo")
