"""Adapters: that they are peft's, that merging loses nothing it need not, and that kept ones travel."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, LoraModel
from torch import nn

from hpo.compress.adapted_layers import StandIns, places
from hpo.compress.adapters import AdaLora, Dora, Lora, LoraFa
from hpo.compress.adapting import AdapterKnobs, Adapters
from hpo.compress.layers import AdaptedLinear, CorrectedLinear, LowRankLinear, MpoLinear
from hpo.compress.method import Patient
from hpo.compress.shown import shown
from hpo.compress.surgery import linear_layers, weight_of
from hpo.compress.treatment import factor_parameters
from hpo.deliver import remote_code
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress import small
from tests.compress.healing import FACTORISED, heal, patient, taught

KNOBS = AdapterKnobs(rank=3, alpha=6)


@pytest.fixture
def dense() -> DenseModel:
    return taught()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shake(parameters: list[nn.Parameter]) -> None:
    """Give adapters something to merge: they all begin as nothing."""
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.add_(drawn(*parameter.shape, seed=number) * 0.1)


def sick(dense: DenseModel, kind: str = "low_rank", **knobs: Value) -> Patient:
    return patient(dense, {"heal": "lora", "steps": 8, "learning_rate": 3e-3, **knobs}, FACTORISED[kind])


@pytest.mark.parametrize("kind", [Lora(), LoraFa(), Dora(), AdaLora()], ids=lambda kind: kind.name)
def test_a_merged_model_computes_what_it_computed_with_adapters(kind: Lora, dense: DenseModel) -> None:
    found = sick(dense)
    before = small.logits(found.model)
    adapters = Adapters(kind, found, KNOBS, seed=1)
    assert torch.allclose(small.logits(found.model), before, atol=1e-4)  # they begin as nothing
    shake([parameter for phase in adapters.phases() for parameter in phase])
    moved = small.logits(found.model)
    assert not torch.allclose(moved, before, atol=1e-2)
    adapters.finish()
    assert torch.allclose(small.logits(found.model), moved, atol=1e-3)
    assert any(isinstance(module, LowRankLinear) for module in found.model.modules())
    assert not any("lora" in name for name, _ in found.model.named_modules())


@pytest.mark.parametrize("use_dora", [False, True])
def test_merging_is_pefts_own(use_dora: bool) -> None:
    def adapted(base: nn.Linear) -> tuple[nn.ModuleDict, Any]:
        torch.manual_seed(4)
        bank = nn.ModuleDict({"only": base})
        config = LoraConfig(r=2, lora_alpha=6, target_modules=["only"], use_dora=use_dora)
        model = LoraModel(bank, config, "default")
        shake([p for p in bank.parameters() if p.requires_grad])
        return bank, model

    weight = drawn(5, 7)
    first, second = nn.Linear(7, 5, bias=False), nn.Linear(7, 5, bias=False)
    for base in (first, second):
        base.weight = nn.Parameter(weight.clone(), requires_grad=False)
    _, model = adapted(first)
    expected = model.merge_and_unload()["only"].weight

    host = nn.ModuleDict({"layer": second})
    stand_ins = StandIns(host, [])
    stand_ins.bank, _ = adapted(second)
    ours = Adapters.__new__(Adapters)
    ours._stand_ins = stand_ins
    assert torch.allclose(ours._merged_weight("only"), expected, atol=1e-6)
    if not use_dora:  # by hand: W + alpha / r * B A
        part: Any = stand_ins.bank["only"]
        product = part.lora_B["default"].weight @ part.lora_A["default"].weight
        assert torch.allclose(expected, weight + 3 * product, atol=1e-6)


def test_dora_by_hand() -> None:
    # one row: W = (3, 4), B A = (0, -4), so the direction is (1, 0), and the magnitude is what is learnt
    base = nn.Linear(2, 1, bias=False)
    base.weight = nn.Parameter(torch.tensor([[3.0, 4.0]]), requires_grad=False)
    bank = nn.ModuleDict({"only": base})
    Dora().tuner(bank, AdapterKnobs(rank=1, alpha=1))
    part: Any = bank["only"]
    with torch.no_grad():
        part.lora_A["default"].weight.copy_(torch.tensor([[0.0, 2.0]]))
        part.lora_B["default"].weight.copy_(torch.tensor([[-2.0]]))
        part.lora_magnitude_vector["default"].weight.copy_(torch.tensor([7.0]))
    part.merge()
    assert part.get_base_layer().weight.tolist() == [pytest.approx([7.0, 0.0])]


def test_lora_fa_trains_no_matrix_next_to_an_input(dense: DenseModel) -> None:
    def count(kind: Lora) -> int:
        adapters = Adapters(kind, sick(dense), KNOBS, seed=1)
        return sum(parameter.numel() for phase in adapters.phases() for parameter in phase)

    assert 0 < count(LoraFa()) < count(Lora())


def test_right_then_left_trains_one_side_after_the_other(dense: DenseModel) -> None:
    found = sick(dense)
    layers = [m for m in found.model.modules() if isinstance(m, LowRankLinear)]
    adapters = Adapters(Lora(), found, KNOBS.model_copy(update={"order": "right_then_left"}), seed=1)
    right, left = adapters.phases()
    sizes = [sum(p.numel() for p in phase) for phase in (right, left)]
    assert sizes[0] == sum(3 * (m.in_features + m.right.shape[0]) for m in layers)
    assert sizes[1] == sum(3 * (m.out_features + m.right.shape[0]) for m in layers)


def test_adalora_ends_with_the_rank_it_was_given_on_average(dense: DenseModel) -> None:
    found = patient(dense, {"heal": "adalora", "steps": 12, "rank": 2})
    kind, knobs = AdaLora(), AdapterKnobs(rank=2, alpha=4, steps=12)
    adapters = Adapters(kind, found, knobs, seed=1)
    (parameters,) = adapters.phases()
    for step in range(12):
        for number, parameter in enumerate(parameters):
            parameter.data += 0.1 * drawn(*parameter.shape, seed=100 * step + number)
            parameter.grad = drawn(*parameter.shape, seed=number)
        adapters.after_step(step)
    values = [value for name, value in adapters._stand_ins.bank.named_parameters() if "lora_E" in name]
    assert {len(value) for value in values} == {3}  # half more than 2, to choose from
    assert sum(int((value != 0).sum()) for value in values) == 2 * len(values)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_dense_layer_takes_what_is_learnt_into_memory_of_its_own(family: str) -> None:
    _, layer = linear_layers(small.dense_model(family).module)[0]
    before = weight_of(layer).clone()
    learnt: Any = shown(layer).learnt({"whole": before + 1})
    assert type(learnt) is type(layer)
    assert torch.equal(weight_of(learnt), before + 1)
    assert torch.equal(weight_of(layer), before)
    x = drawn(2, before.shape[1])
    assert torch.allclose(learnt(x), layer(x) + x.sum(-1, keepdim=True), atol=1e-4)


def test_a_tensor_train_takes_what_its_bonds_can_carry() -> None:
    cores = [drawn(1, 2, 3, 4), drawn(4, 3, 2, 1, seed=1)]
    layer = MpoLinear(cores, None, "rebuild")
    wanted = layer.dense_weight().detach()
    assert shown(layer).learnt({"whole": 1.5 * wanted}) is layer
    assert torch.allclose(layer.dense_weight(), 1.5 * wanted, atol=1e-5)
    full = drawn(6, 6, seed=2)  # bond 4 of 6 cannot carry any matrix, but its best part
    shown(layer).learnt({"whole": full})
    rearranged = full.reshape(2, 3, 3, 2).permute(0, 2, 1, 3).reshape(6, 6)
    lost = torch.linalg.svdvals(rearranged)[4:].square().sum()
    assert (layer.dense_weight() - full).square().sum().item() == pytest.approx(lost.item(), rel=1e-3)


def test_a_kept_adapter_is_what_peft_computes() -> None:
    base = nn.Linear(7, 5)
    base.requires_grad_(False)
    bank = nn.ModuleDict({"only": base})
    LoraModel(bank, LoraConfig(r=2, lora_alpha=5, target_modules=["only"]), "default")
    shake([p for p in bank.parameters() if p.requires_grad])
    part: Any = bank["only"]
    up, down = part.lora_B["default"].weight.detach(), part.lora_A["default"].weight.detach()
    x = drawn(3, 7)
    assert torch.allclose(AdaptedLinear(base, up, down, 2.5)(x), part(x), atol=1e-6)


@pytest.mark.parametrize("kind", ["low_rank", "mpo"])
def test_kept_adapters_are_counted_trained_and_multiplied_out(kind: str, dense: DenseModel) -> None:
    found = sick(dense, kind, adapter="kept", rank=3)
    assert heal(found).kept_after
    kept = [module for module in found.model.modules() if isinstance(module, AdaptedLinear)]
    assert found.plan.heal is not None
    added = sum(module.up.numel() + module.down.numel() for module in kept)
    assert added == found.plan.heal.kept_parameters == found.plan.heal.kept_macs_per_token > 0
    assert all(float(module.up.abs().max()) > 0 for module in kept)
    x = drawn(2, kept[0].in_features)
    assert torch.allclose(kept[0](x), x @ kept[0].dense_weight().T, atol=1e-4)
    factors = {id(parameter) for parameter in factor_parameters(found.model)}
    assert {id(module.up) for module in kept} <= factors


@pytest.mark.parametrize("kind", ["low_rank", "mpo"])
def test_a_model_with_kept_adapters_loads_from_its_export(
    kind: str, dense: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sick(dense, kind, adapter="kept", rank=3)
    heal(found)
    name = f"exported_adapters_on_{kind}"
    source = remote_code.source(found.model, dense.module)
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    exported = import_module(name)
    model: Any = found.model
    mapping = model.config.to_dict() | remote_code.configuration(found.model, found.plan.hash)
    loaded = exported.CompressedLlamaForCausalLM(exported.CompressedLlamaConfig(**mapping)).eval()
    loaded.load_state_dict(found.model.state_dict())
    assert torch.allclose(small.logits(loaded), small.logits(found.model), atol=1e-4)


def test_the_correction_of_a_layer_in_few_bits_is_its_adapter(dense: DenseModel) -> None:
    quantised: dict[str, Value] = {"factorise": "eora", "factorise.bits": 3, "factorise.rank": 3}
    found = patient(dense, {"heal": "lora", "steps": 16, "learning_rate": 3e-3}, quantised)
    layers = [m for m in found.model.modules() if isinstance(m, CorrectedLinear)]
    assert layers
    codes = {k: b.clone() for k, b in found.model.named_buffers()}
    before = [factor.clone() for layer in layers for factor in layer.factors()]
    assert heal(found).kept_after
    after = [factor for layer in layers for factor in layer.factors()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(codes[k], b) for k, b in found.model.named_buffers())
    assert sum(p.numel() for p in found.model.parameters()) == sum(
        p.numel() for p in patient(dense, {}, quantised).model.parameters()
    )


def test_adapters_stay_beside_layers_in_few_bits_as_in_qlora(dense: DenseModel) -> None:
    quantised: dict[str, Value] = {"factorise": "eora", "factorise.bits": 3, "factorise.rank": 0}
    found = patient(dense, {"heal": "lora", "steps": 16, "adapter": "kept", "rank": 2}, quantised)
    assert heal(found).kept_after
    kept = [m for m in found.model.modules() if isinstance(m, AdaptedLinear)]
    assert kept
    assert all(isinstance(module.base, CorrectedLinear) for module in kept)
    with pytest.raises(Unsupported, match="no layer has a correction"):
        patient(dense, {"heal": "lora"}, quantised)


def test_what_cannot_take_an_adapter_is_named(dense: DenseModel) -> None:
    with pytest.raises(Unsupported, match="Embedding"):
        shown(dense.module.get_submodule("model.embed_tokens"))
    attention = [place.name for place in places(sick(dense), "attention")]
    assert attention
    assert all("self_attn" in name for name in attention)
