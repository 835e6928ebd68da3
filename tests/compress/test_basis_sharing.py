"""Which layers share a basis, that they hold it once, and that it serves them all."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from hpo.compress.applying import compressed
from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.basis_sharing import balance_shared
from hpo.compress.layers import KINDS, Compressed, LowRankLinear, SharedBasisLinear
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of
from hpo.compress.profiling import Profiler
from hpo.compress.shared_bases import SharedBases
from hpo.compress.sharing_plan import SharedBasis, groups, role, shared_basis
from hpo.compress.surgery import count_macs, shared_copy, weight_of
from hpo.compress.surgery import replace as put
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small

READERS = {
    "llama": {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"},
    "qwen2": {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"},
    "gpt2": {"c_attn", "c_fc"},
    "neox": {"query_key_value", "dense_h_to_4h"},
    "opt": {"q_proj", "k_proj", "v_proj", "fc1"},
}


def deep(layers: int) -> DenseModel:
    """Return a Llama of that many blocks."""
    torch.manual_seed(layers)
    module = small.llama(layers).eval().requires_grad_(False)
    return replace(small.dense_model("llama"), module=module, digest=f"test-llama-{layers}")


def candidate(**knobs: Any) -> Candidate:
    return Candidate.of(
        {"factorise": "basis_sharing", **{f"factorise.{name}": value for name, value in knobs.items()}}
    )


def applied(dense: DenseModel, **knobs: Any) -> tuple[nn.Module, Plan]:
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    asked = candidate(**knobs)
    bases = SharedBases(
        knobs.get("group", 2), knobs.get("share", "all"), knobs.get("coefficients", "own") == "own"
    )
    plan = plan_of(profiler.profile([bases]), asked)
    return compressed(profiler, asked, plan), plan


def architecture(dense: DenseModel) -> Architecture:
    return Profiler(dense, small.corpus(), small.CONTEXT).architecture


@pytest.fixture(scope="module")
def five() -> DenseModel:
    return deep(5)


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_layers_that_read_the_residual_stream_share_and_those_that_write_to_it_do_not(family: str) -> None:
    found = architecture(small.dense_model(family))
    shared = {found.layers[i].type for group in groups(found, 2) for i in group if len(group) == 2}
    alone = {found.layers[i].type for group in groups(found, 2) for i in group if len(group) == 1}
    assert shared == READERS[family]
    assert alone == set(found.types) - READERS[family]


def test_blocks_are_taken_in_turn_and_the_last_group_is_what_is_left(five: DenseModel) -> None:
    found = architecture(five)

    def of(kind: str, size: int) -> list[list[int]]:
        return [
            [found.layers[i].block for i in group]
            for group in groups(found, size)
            if found.layers[group[0]].type == kind
        ]

    assert of("up_proj", 2) == [[0, 1], [2, 3], [4]]
    assert of("q_proj", 3) == [[0, 1, 2], [3, 4]]
    assert of("k_proj", 4) == [[0, 1, 2, 3], [4]]
    assert of("down_proj", 4) == [[0], [1], [2], [3], [4]]
    assert sorted(i for group in groups(found, 3) for i in group) == list(range(len(found.layers)))


def test_only_the_layers_asked_for_share(five: DenseModel) -> None:
    found = architecture(five)
    for share in ("attention", "mlp"):
        pairs = [group for group in groups(found, 2, share) if len(group) > 1]
        assert {found.layers[i].group for group in pairs for i in group} == {share}


def test_layers_of_other_shapes_and_other_experts_do_not_share() -> None:
    names = ["0.mlp.experts.0.w1", "0.mlp.experts.1.w1", "1.mlp.experts.0.w1", "1.mlp.experts.1.w1"]
    layers = [LayerShape(f"model.layers.{name}", 32, 16, int(name[0]), "mlp", name) for name in names]
    layers.append(LayerShape("model.layers.0.mlp.up", 32, 16, 0, "mlp", ""))
    layers.append(LayerShape("model.layers.1.mlp.up", 64, 16, 1, "mlp", ""))
    found = Architecture(tuple(layers), 0, 0, 0, 8, 32)
    assert groups(found, 2) == ((0, 2), (1, 3), (4,), (5,))
    assert role(layers[2]) == role(layers[0]) != role(layers[1])


@pytest.mark.parametrize(("group", "coefficients"), [(2, "own"), (3, "own"), (4, "common")])
def test_counts_are_those_of_the_model_where_the_depth_is_no_multiple(
    five: DenseModel, group: int, coefficients: str
) -> None:
    model, plan = applied(five, keep_ratio=0.5, group=group, coefficients=coefficients)
    assert sum(p.numel() for p in model.parameters()) == plan.parameters
    assert sum(p.numel() * 4 for p in model.parameters()) == plan.weight_bytes
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs
    kept = plan.linear_parameters / plan.architecture.linear_parameters
    assert kept == pytest.approx(0.5, abs=0.005)


def test_the_first_layer_pays_for_the_basis_and_every_layer_computes_with_it() -> None:
    # 2 layers of 8 x 6 at rank 3: coefficients 8 * 3 each, one basis of 3 * 6.
    first, second = (shared_basis(8, 6, 3, k, 2, True, 2, "all").costs for k in range(2))
    assert (first.parameters, second.parameters) == (42, 24)
    assert first.macs_per_token == second.macs_per_token == 42
    assert first.key != second.key
    # Together they break even at 2 * 48 / (16 + 6) = 4.4.
    assert shared_basis(8, 6, 4, 0, 2, True, 2, "all").kind == "dense"
    with pytest.raises(Unsupported, match="allowed: 1 to 4"):
        SharedBasis(8, 6, 5, 0, 2)
    with pytest.raises(Unsupported, match="position 2 in a group of 2"):
        SharedBasis(8, 6, 3, 2, 2)


@pytest.mark.parametrize("coefficients", ["own", "common"])
@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_a_model_whose_neighbours_have_a_basis_in_common_is_reproduced(
    family: str, coefficients: str
) -> None:
    dense = small.dense_model(family, digest=f"one-basis-{family}")
    with torch.no_grad():
        for seed, (name, _) in enumerate(small.weights(dense.module)):
            weight = weight_of(dense.module.get_submodule(name))
            # the same basis for every layer of that width
            basis = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(weight.shape[1]))
            own = torch.randn(len(weight), 4, generator=torch.Generator().manual_seed(seed))
            weight.copy_(0.1 * own @ basis)
    model, plan = applied(dense, rank=4, coefficients=coefficients)
    kinds = {type(m) for m in model.modules() if isinstance(m, Compressed)}
    assert kinds == {SharedBasisLinear, LowRankLinear}
    assert all(layer.kind != "dense" for layer in plan.layers)
    expected = small.logits(dense.module)
    assert float((small.logits(model) - expected).norm() / expected.norm()) < 1e-4


def test_own_coefficients_bring_every_layer_nearer_on_its_own_inputs(five: DenseModel) -> None:
    own, plan = applied(five, keep_ratio=0.4, group=3)
    common, _ = applied(five, keep_ratio=0.4, group=3, coefficients="common")
    profiler = Profiler(five, small.corpus(), small.CONTEXT)
    nearer = 0
    for shape, layer in plan.named():
        if layer.kind == "shared_basis":
            gram = profiler.statistics.gram(shape).double()
            dense = five.module.get_parameter(f"{shape.name}.weight").double()
            errors = []
            for model in (own, common):
                found: Any = model.get_submodule(shape.name)
                difference = dense - found.dense_weight().double()
                errors.append(float((difference @ gram * difference).sum()))
            assert errors[0] <= errors[1] * (1 + 1e-6)
            nearer += errors[0] < errors[1] * 0.999
    assert nearer > 10


def test_a_basis_is_one_parameter_that_learns_from_all_its_layers(five: DenseModel) -> None:
    model, _ = applied(five, rank=5, group=4)
    layers = shared(model)
    owners = [layer for layer in layers.values() if layer.basis is not None]
    assert len(layers) == 5 * 4
    assert len(owners) == 5
    factors = [p for m in model.modules() if isinstance(m, Compressed) for p in m.factors()]
    assert len(factors) == len(set(map(id, factors)))
    assert len([p for p in factors if any(p is owner.basis for owner in owners)]) == 5
    first, last = (layers[f"model.layers.{block}.mlp.up_proj"] for block in (0, 3))
    first.basis.requires_grad_(True)
    last(torch.ones(1, last.in_features)).sum().backward()
    assert first.basis.grad is not None
    assert last.in_features == 32
    assert "basis" not in dict(last.named_parameters())


def shared(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, SharedBasisLinear)}


def test_a_copy_has_a_basis_of_its_own_and_its_layers_share_that_one(five: DenseModel) -> None:
    model, _ = applied(five, rank=5)
    before = small.logits(model)
    for copied, is_deep in ((copy.deepcopy(model), True), (shared_copy(model), False)):
        first, second = (shared(copied)[f"model.layers.{block}.mlp.up_proj"] for block in range(2))
        assert second.shared() is first.basis
        original = shared(model)["model.layers.0.mlp.up_proj"]
        assert (first.basis is not original.basis) == is_deep
        torch.testing.assert_close(small.logits(copied), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_model_put_together_from_sizes_and_a_state_dict_is_the_same(
    five: DenseModel, is_wrapped: bool
) -> None:
    """As an exported one is loaded; something may have been put around the layer that owns a basis."""
    model, _ = applied(five, rank=5, group=3)
    state = model.state_dict()
    assert sum("basis" in key for key in state) == 10
    fresh: Any = copy.deepcopy(five.module)
    for name, module in model.named_modules():
        if isinstance(module, Compressed):
            put(fresh, name, KINDS[module.kind].empty(module.size(), fresh.get_submodule(name)))
    fresh.load_state_dict(state, strict=True)
    if is_wrapped:
        put(fresh, "model.layers.0.mlp.up_proj", nn.Sequential(fresh.model.layers[0].mlp.up_proj))
    for module in fresh.modules():
        if isinstance(module, Compressed):
            module.connect(fresh)
    torch.testing.assert_close(small.logits(fresh), small.logits(model), rtol=1e-3, atol=1e-3)


def test_a_layer_can_be_multiplied_out_in_any_precision(five: DenseModel) -> None:
    model, _ = applied(five, rank=5)
    half = copy.deepcopy(model).bfloat16()
    for name, layer in shared(half).items():
        dense: Any = layer.as_dense(copy.deepcopy(five.module.get_submodule(name)).bfloat16())
        assert dense.weight.dtype == torch.bfloat16
        exact: Any = shared(model)[name]
        torch.testing.assert_close(dense.weight.float(), exact.dense_weight(), rtol=0.1, atol=0.1)


def test_balancing_leaves_the_function_and_evens_out_the_scales(five: DenseModel) -> None:
    model, _ = applied(five, rank=5, group=3)
    model = copy.deepcopy(model)
    before = small.logits(model)
    balance_shared(model)
    torch.testing.assert_close(small.logits(model), before, rtol=1e-3, atol=1e-3)
    for kind in ("q_proj", "k_proj", "v_proj"):
        members = [shared(model)[f"model.layers.{block}.self_attn.{kind}"] for block in range(3)]
        tall, basis = torch.cat([m.coefficients for m in members]), members[0].basis
        assert float(tall.norm()) == pytest.approx(float(basis.norm()), rel=1e-3)


def test_plans_that_give_the_same_weights_are_one_and_others_are_not() -> None:
    two, five = deep(2), deep(5)
    hashes = {group: applied(two, rank=5, group=group)[1].hash for group in (2, 3, 4)}
    assert len(set(hashes.values())) == 1
    found = [applied(five, rank=5, group=group)[1].hash for group in (2, 3, 4)]
    found.append(applied(five, rank=5, coefficients="common")[1].hash)
    found.append(applied(five, rank=5, share="mlp")[1].hash)
    assert len(set(found)) == len(found)


def test_a_rank_from_break_even_on_leaves_the_layers_dense(five: DenseModel) -> None:
    model, plan = applied(five, rank=1000)
    assert plan.hash == "dense"
    assert torch.equal(small.logits(model), small.logits(five.module))


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({}, "exactly one of keep_ratio, rank"),
        ({"keep_ratio": 0.5, "rank": 3}, "exactly one"),
        ({"keep_ratio": 0.5, "group": 1}, "group"),
        ({"keep_ratio": 0.5, "group": 5}, "group"),
        ({"keep_ratio": 0.5, "share": "down_proj"}, "share"),
    ],
)
def test_wrong_knobs_are_refused(knobs: dict[str, Any], named: str, five: DenseModel) -> None:
    profile = Profiler(five, small.corpus(), small.CONTEXT).profile([])
    with pytest.raises(Unsupported, match=named):
        plan_of(profile, candidate(**knobs))
