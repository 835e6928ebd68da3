import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.compress.applying import compressed, healed
from hpo.compress.encoded_plan import Encoded
from hpo.compress.grid import Grid
from hpo.compress.layers import CorrectedLinear, PackedLowRankLinear
from hpo.compress.layers.packed import Packed
from hpo.compress.method import Patient
from hpo.compress.nf4 import Nf4Quantizer
from hpo.compress.normal_float import NormalFloat
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.quantizer import Quantizer
from hpo.compress.rounding import RoundToNearest
from hpo.compress.straight_through import Latent, Latents, Through
from hpo.compress.surgery import count_macs
from hpo.compress.ternary import TernaryQuantizer
from hpo.compress.trits import Trits
from hpo.errors import NonFinite, Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Value
from tests.compress import small
from tests.compress.healing import counting, heal, held_out_loss, patient, taught

ORDER: dict[str, Value] = {"order": "factorise > quantize > heal"}
TERNARY: dict[str, Value] = {"quantize": "ternary", **ORDER}
TWO_BITS: dict[str, Value] = {"quantize": "rtn", "quantize.bits": 2, "quantize.group_size": 16, **ORDER}
CORRECTED: dict[str, Value] = {**TWO_BITS, "quantize.correction": 0.3}
HALF_RANK: dict[str, Value] = {"factorise": "whitened_svd", "factorise.keep_ratio": 0.5}
NARROW: dict[str, Value] = {"factorise": "modegpt", "factorise.keep_ratio": 0.7}
CASES: dict[str, dict[str, Value]] = {
    "ternary": TERNARY,
    "ternary absmean": {**TERNARY, "quantize.scale": "absmean"},
    "2 bits": TWO_BITS,
    "2 bits, offsets, whole rows": {**TWO_BITS, "quantize.group_size": 0, "quantize.symmetric": False},
    "2 bits, corrected": CORRECTED,
    "nf4": {"quantize": "nf4", "quantize.group_size": 16, **ORDER},
    "nf4, doubled": {"quantize": "nf4", "quantize.group_size": 16, "quantize.double": True, **ORDER},
    "factors of 2 bits": {**HALF_RANK, **TWO_BITS, "quantize.group_size": 0},
    "ternary factors": {**HALF_RANK, **TERNARY},
    "ternary factors, absmean": {**HALF_RANK, **TERNARY, "quantize.scale": "absmean"},
    "narrow": {**NARROW, **TWO_BITS, "quantize.group_size": 0},
}
HEALING: dict[str, Value] = {"heal": "straight_through", "steps": 10, "learning_rate": 1e-3}
QUANTIZERS: list[Quantizer] = [
    RoundToNearest(Grid(2, 4)),
    Nf4Quantizer(NormalFloat(4)),
    TernaryQuantizer(Trits(4), "absmean"),
    TernaryQuantizer(Trits(4), "fitted"),
]


@pytest.fixture
def dense() -> DenseModel:
    return taught()


def sick(dense: DenseModel, few_bits: dict[str, Value], **healing: Value) -> Patient:
    return patient(dense, {**HEALING, **healing}, few_bits)


def packed_parts(model: nn.Module) -> list[Packed]:
    return [module for module in model.modules() if isinstance(module, Packed)]


def states(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for part in packed_parts(model) for buffer in part.buffers()]


def check_costs(found: Patient, dense: DenseModel) -> None:
    held, whole, plan = Held.by(found.model), Held.by(dense.module), found.plan
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - whole.buffer_bytes == plan.weight_bytes
    assert count_macs(found.model, small.CONTEXT) == plan.prefill_macs


def gaussian(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("few_bits", CASES.values(), ids=CASES)
def test_healing_lowers_the_loss_and_leaves_what_the_plan_says(
    few_bits: dict[str, Value], dense: DenseModel
) -> None:
    found = sick(dense, few_bits)
    before, modules = held_out_loss(found), dict(found.model.named_modules())
    weights = [p.clone() for p in dense.module.parameters()]
    outcome = heal(found)
    assert outcome.kept_after
    assert outcome.before == pytest.approx(before, rel=1e-6)
    assert outcome.after == pytest.approx(held_out_loss(found), rel=1e-6)
    assert outcome.after < before
    check_costs(found, dense)
    kinds = {name: type(module) for name, module in found.model.named_modules()}
    assert kinds == {name: type(module) for name, module in modules.items()}
    assert not any(p.requires_grad for p in found.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(dense.module.parameters(), weights, strict=True))


def test_ternary_weights_are_healed_of_most_of_their_loss(dense: DenseModel) -> None:
    found = sick(dense, TERNARY, steps=60)
    perfect = held_out_loss(Patient(dense.module, found.plan, found.materials))
    outcome = heal(found)
    assert outcome.before > perfect + 1
    assert outcome.after - perfect < 0.3 * (outcome.before - perfect)


@pytest.mark.parametrize("few_bits", CASES.values(), ids=CASES)
def test_training_starts_from_the_very_function_that_is_there(
    few_bits: dict[str, Value], dense: DenseModel
) -> None:
    found = sick(dense, few_bits)
    before, held = small.logits(found.model), states(found.model)
    treatment = Latents(found, 0)
    assert any(isinstance(module, Through) for module in found.model.modules())
    slack = 2e-2 if few_bits.get("quantize.double") else 1e-4  # scales of scales move by a part of a step
    assert torch.allclose(small.logits(found.model), before, atol=slack * float(before.abs().max()))
    with torch.enable_grad():
        ids = small.corpus(1, seed=9).sequences[0][None]
        assert torch.allclose(found.model(input_ids=ids).logits[0], small.logits(found.model), atol=1e-4)
    treatment.undo()
    assert torch.equal(small.logits(found.model), before)
    assert all(torch.equal(a, b) for a, b in zip(states(found.model), held, strict=True))


def test_dense_weights_are_what_is_trained_where_they_were_rounded(dense: DenseModel) -> None:
    found = sick(dense, TERNARY)
    Latents(found, 0)
    latents = [module for module in found.model.modules() if isinstance(module, Latent)]
    weights = [weight for _, weight in small.weights(dense.module)]
    assert len(latents) == len(weights)
    assert all(torch.equal(latent.weight, w) for latent, w in zip(latents, weights, strict=True))


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda quantizer: quantizer.key + str(quantizer.format))
def test_without_the_dense_weight_values_are_trained_that_round_to_what_is_there(
    quantizer: Quantizer,
) -> None:
    packed = quantizer.quantise(gaussian(3, 8))
    for other in (None, gaussian(3, 8, seed=1), gaussian(8, 3)):
        latent = Latent(packed, quantizer, other)
        assert torch.equal(latent(), packed.dequantise())
        assert torch.equal(latent.packed().dequantise(), packed.dequantise())


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda quantizer: quantizer.key + str(quantizer.format))
def test_the_gradient_passes_as_if_nothing_were_rounded(quantizer: Quantizer) -> None:
    weight, x, wanted = gaussian(3, 8), gaussian(5, 8, 1), gaussian(5, 3, 2)
    layer = CorrectedLinear(quantizer.quantise(weight), None, None, torch.ones(3))
    through = Through(layer, quantizer, weight)
    (latent,) = through.weights()
    latent.requires_grad_(True)
    with torch.enable_grad():
        y = through(x)
        (0.5 * (y - wanted).square().sum()).backward()
    assert torch.allclose(y.detach(), layer(x).detach(), atol=1e-6)
    assert latent.grad is not None
    assert torch.allclose(latent.grad, (y - wanted).detach().T @ x, atol=1e-5)


def test_both_factors_of_a_layer_take_gradients() -> None:
    quantizer = RoundToNearest(Grid(3))
    left, right = (quantizer.quantise(gaussian(2, size)) for size in (6, 8))
    through = Through(PackedLowRankLinear(left, right, None), quantizer, None)
    weights = through.weights()
    x = gaussian(5, 8, 1)
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        through(x).sum().backward()
    ones = torch.ones(5, 6)
    expected = ones.T @ (x @ right.dequantise().T), left.dequantise() @ ones.T @ x
    assert weights[0].grad is not None
    assert weights[1].grad is not None
    assert torch.allclose(weights[0].grad, expected[0].T, atol=1e-4)
    assert torch.allclose(weights[1].grad, expected[1], atol=1e-4)


def test_a_forward_sees_what_a_step_has_changed() -> None:
    quantizer = RoundToNearest(Grid(4))
    through = Through(CorrectedLinear(quantizer.quantise(gaussian(3, 8)), None, None, None), quantizer, None)
    with torch.no_grad():
        before = through(torch.eye(8))
        through.weights()[0].mul_(2)
        assert torch.equal(
            through(torch.eye(8)), before
        )  # known until the treatment says that a step is over
        through.forget()
        assert torch.allclose(through(torch.eye(8)), 2 * before, rtol=1e-3)


def test_factors_beside_the_weights_are_trained_with_them(dense: DenseModel) -> None:
    found = sick(dense, CORRECTED)
    layers = [module for module in found.model.modules() if isinstance(module, CorrectedLinear)]
    factors = [factor.clone() for layer in layers for factor in layer.factors()]
    assert factors
    heal(found)
    now = [factor for layer in layers for factor in layer.factors()]
    assert not any(torch.equal(a, b) for a, b in zip(now, factors, strict=True))


def test_a_healing_that_does_harm_is_undone_to_the_bit(dense: DenseModel) -> None:
    found = sick(dense, CORRECTED)
    before, held = small.logits(found.model), states(found.model)
    outcome = heal(found, learning_rate=0.99, schedule="constant", steps=6)
    assert not outcome.kept_after
    assert torch.equal(small.logits(found.model), before)
    assert all(torch.equal(a, b) for a, b in zip(states(found.model), held, strict=True))
    check_costs(found, dense)


def test_the_best_state_checked_is_the_one_that_is_kept(dense: DenseModel) -> None:
    found = sick(dense, TERNARY)
    outcome = heal(found, steps=30, patience=2, check_every=2, learning_rate=0.05, schedule="constant")
    assert outcome.kept_after
    assert outcome.steps < 30
    assert outcome.after == pytest.approx(held_out_loss(found), rel=1e-6)
    assert outcome.after < heal(sick(dense, TERNARY), steps=outcome.steps, learning_rate=0.05).before


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e6])
def test_weights_that_diverge_end_the_training_and_are_refused(value: float) -> None:
    quantizer = RoundToNearest(Grid(4))
    latent = Latent(quantizer.quantise(gaussian(3, 8)), quantizer, None)
    with torch.no_grad():
        latent.weight[1, 2] = value
    assert not latent.is_sound()
    assert torch.isnan(latent()).all()
    with pytest.raises(NonFinite, match=r"diverged[\s\S]*learning_rate"):
        latent.packed()


def test_the_same_seed_heals_alike_and_another_does_not(dense: DenseModel) -> None:
    losses = [heal(sick(dense, TERNARY, steps=4), seed).after for seed in (1, 1, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[2] != pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("loss", ["cross_entropy", "hidden", "local"])
def test_every_loss_serves(loss: str, dense: DenseModel) -> None:
    assert heal(sick(dense, TWO_BITS, loss=loss)).kept_after


def test_a_model_of_half_precision_stays_so(dense: DenseModel) -> None:
    found = sick(dense, TERNARY)
    half = Patient(copy.deepcopy(found.model).bfloat16(), found.plan, found.materials)
    assert heal(half).kept_after
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}


def base_plan(dense: DenseModel, values: dict[str, Any]) -> Any:
    asked = Candidate.of({"heal": "straight_through", **values})
    base = Profiler(dense, counting(), small.CONTEXT)
    return plan_of(base.profile(preparations_of(asked)), asked)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quantize": "ternary"}, r"what quantize makes, and comes before it[\s\S]*quantize > heal"),
        ({**HALF_RANK, "quantize": "ternary"}, r"comes before it[\s\S]*order: quantize > heal"),
        ({**HALF_RANK}, r"no layer is in few bits when healing begins[\s\S]*quantize > heal"),
        ({"quantize": "gptq", "quantize.group_size": 0, **ORDER}, r"gptq[\s\S]*rtn, nf4 or ternary"),
        ({"quantize": "int8", **ORDER}, r"Int8 \(8 bits[\s\S]*rtn, nf4 or ternary"),
        ({"quantize": "squeezellm", **ORDER}, r"squeezellm \(4 bits by tables[\s\S]*rtn, nf4 or ternary"),
        ({**TERNARY, "heal.optimiser": "mezo"}, r"heal.optimiser=mezo[\s\S]*adamw"),
        ({**TERNARY, "heal.loss": "huber"}, r"heal\.loss"),
    ],
    ids=[
        "usual order",
        "usual order, factors",
        "nothing in few bits",
        "gptq",
        "int8",
        "squeezellm",
        "mezo",
        "loss",
    ],
)
def test_what_cannot_be_healed_so_is_refused_when_planned(
    values: dict[str, Any], said: str, dense: DenseModel
) -> None:
    with pytest.raises(Unsupported, match=said):
        base_plan(dense, values)


@pytest.mark.parametrize("store", ["dense", "bitmap"])
def test_zeros_are_refused_since_they_would_not_stay(store: str, dense: DenseModel) -> None:
    values = {
        "sparsify": "magnitude",
        "sparsify.pattern": "2:4",
        "sparsify.store": store,
        **TERNARY,
        "order": "sparsify > quantize > heal",
    }
    with pytest.raises(Unsupported, match=r"zeros .* would not stay zero|magnitude.* again in every step"):
        base_plan(dense, values)


def test_no_steps_are_no_plan(dense: DenseModel) -> None:
    assert base_plan(dense, {**TERNARY, "heal.steps": 0}).heal is None


def test_healing_changes_no_bytes_of_the_plan(dense: DenseModel) -> None:
    healing = base_plan(dense, {**CORRECTED, "heal.steps": 3})
    asked = Candidate.of({**CORRECTED})
    base = Profiler(dense, counting(), small.CONTEXT)
    alone = plan_of(base.profile(preparations_of(asked)), asked)
    assert healing.layers == alone.layers
    assert all(isinstance(layer, Encoded) for layer in healing.layers)
    assert (healing.weight_bytes, healing.parameters) == (alone.weight_bytes, alone.parameters)
    assert healing.hash != alone.hash


def test_what_was_healed_can_be_kept_for_others_without_harm(dense: DenseModel) -> None:
    """There are no factors for another trial to start from, which is no error."""
    asked = Candidate.of({**TERNARY, "heal": "straight_through", "heal.steps": 2})
    base = Profiler(dense, counting(), small.CONTEXT)
    plan = plan_of(base.profile(preparations_of(asked)), asked)
    first = healed(base, asked, plan, compressed(base, asked, plan), keep=True)
    second = healed(base, asked, plan, compressed(base, asked, plan), parent_plan=plan.hash)
    assert first is not None
    assert second is not None
    assert not second.warm
    assert second.after == pytest.approx(first.after, rel=1e-6)
