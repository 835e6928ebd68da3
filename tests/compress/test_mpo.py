"""Matrix product operators on small models: bonds, sweeps and orders, from knobs to weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.compress import mpo_plan
from hpo.compress.applying import compressed
from hpo.compress.factors import FactorStore
from hpo.compress.layer_plan import Dense
from hpo.compress.layers import MpoLinear
from hpo.compress.mpo import Mpo
from hpo.compress.mpo_basis import WEIGHTED, MpoBasis, ReorderedBasis
from hpo.compress.mpo_curves import BondCurves
from hpo.compress.neurons import unit_of, units
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.preparation import Preparation
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import Profiler
from hpo.compress.surgery import bias_of, replace, shared_copy, weight_of
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small

Build = tuple[Plan, nn.Module]
SKEWED = {"keep_ratio": 0.4, "factorisation": "skewed"}
"""Sites under which the order of heads matters too: a small one splits every head."""


@pytest.fixture(scope="module")
def profile(llama: DenseModel) -> ModelProfile:
    stored = [MpoBasis(sites) for sites in (2, 3, 4)]
    reordered = map(ReorderedBasis, stored[:2])
    prepared: list[Preparation] = [*stored, *reordered, WEIGHTED]
    return Profiler(llama, small.corpus(), small.CONTEXT).profile(prepared)


def candidate(knobs: dict[str, Any]) -> Candidate:
    return Candidate.of({"factorise": "mpo", **{f"factorise.{k}": v for k, v in knobs.items()}})


def build(dense: DenseModel, knobs: dict[str, Any]) -> Build:
    asked, profiler = candidate(knobs), Profiler(dense, small.corpus(), small.CONTEXT)
    plan = plan_of(profiler.profile(preparations_of(asked)), asked)
    return plan, compressed(profiler, asked, plan)


def clustered(family: str) -> DenseModel:
    """A model whose neurons, and heads, differ much in size, mixed up."""
    dense = small.dense_model(family, digest=f"clustered-{family}")
    for unit in units(dense.module):
        inner = weight_of(dense.module.get_submodule(unit.column))
        count = unit.heads or inner.shape[1]
        order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
        scales = torch.logspace(0, -1.5, count)[order].repeat_interleave(inner.shape[1] // count)
        with torch.no_grad():
            inner.mul_(scales)
            for name in unit.rows:
                outer = weight_of(dense.module.get_submodule(name))
                if len(outer) == len(scales):
                    outer.mul_(scales[:, None])
    return dense


def as_stored(plan: Plan, model: nn.Module, dense: DenseModel) -> dict[str, Tensor]:
    """Return W' of every layer, its rows or columns back in the order of the dense model."""
    store, found = Profiler(dense, small.corpus(), small.CONTEXT).store, {}
    moved = {
        unit_of(shape.name): layer.prepared
        for shape, layer in plan.named()
        if isinstance(layer, mpo_plan.Mpo) and layer.neurons == "reordered"
    }
    columns = {unit.column for unit in units(dense.module)}
    for shape in plan.architecture.layers:
        layer = model.get_submodule(shape.name)
        W = layer.dense_weight() if isinstance(layer, MpoLinear) else weight_of(layer)
        if unit_of(shape.name) in moved:
            order = store.arrays(moved[unit_of(shape.name)])[f"{shape.name}@order"]
            back = torch.from_numpy(order).long().argsort()
            W = W[:, back] if shape.name in columns else W[back]
        found[shape.name] = W.detach()
    return found


def lost(W: Tensor, V: Tensor, G: Tensor | None = None) -> float:
    """Return the relative squared error of V, weighted by G if there is one."""
    D, W = (W - V).double(), W.double()
    weighted = (D, W) if G is None else (D @ G.double(), W @ G.double())
    return float((weighted[0] * D).sum() / (weighted[1] * W).sum())


def stored_weight(dense: DenseModel, name: str) -> Tensor:
    return weight_of(dense.module.get_submodule(name)).detach()


@pytest.mark.parametrize(("sites", "permutation"), [(2, "none"), (2, "cluster"), (3, "cluster")])
def test_sweeps_lower_every_layers_error_on_its_inputs(sites: int, permutation: str) -> None:
    dense = clustered("llama")
    knobs = {"keep_ratio": 0.4, "sites": sites, "permutation": permutation}
    weights = [as_stored(*build(dense, {**knobs, "sweeps": sweeps}), dense) for sweeps in (0, 1)]
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    for layer in profiler.architecture.layers:
        G, W = profiler.statistics.gram(layer), stored_weight(dense, layer.name)
        before, after = (lost(W, found[layer.name], G) for found in weights)
        assert after < 0.95 * before


def test_swept_cores_are_made_once_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = small.dense_model("llama", digest="swept-once")
    knobs = {"keep_ratio": 0.5, "sweeps": 1}
    _, first = build(dense, knobs)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("swept again")

    monkeypatch.setattr("hpo.compress.swept.swept", fail)
    _, again = build(dense, knobs)
    assert torch.equal(small.logits(first), small.logits(again))
    # Contraction is no part of the key, bonds and sweeps are.
    build(dense, {**knobs, "contraction": "chain"})
    for other in ({"keep_ratio": 0.4, "sweeps": 1}, {"keep_ratio": 0.5, "sweeps": 2}):
        with pytest.raises(AssertionError, match="swept again"):
            build(dense, other)


def test_half_precision_is_swept_in_double_and_kept_as_it_was() -> None:
    dense = small.dense_model("llama", digest="swept-half")
    dense.module.to(torch.bfloat16)
    knobs = {"keep_ratio": 0.5, "permutation": "cluster"}
    weights = [as_stored(*build(dense, {**knobs, "sweeps": sweeps}), dense) for sweeps in (0, 1)]
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    for layer in profiler.architecture.layers:
        assert weights[1][layer.name].dtype == torch.bfloat16
        G, W = profiler.statistics.gram(layer), stored_weight(dense, layer.name)
        before, after = (lost(W, found[layer.name], G) for found in weights)
        assert after < 0.97 * before


def test_a_torn_entry_of_swept_cores_is_made_again() -> None:
    dense = small.dense_model("llama", digest="swept-torn")
    _, first = build(dense, {"keep_ratio": 0.5, "sweeps": 1})
    root = Profiler(dense, small.corpus(), small.CONTEXT).store.directory("swept")
    victim = next(Path(root).glob("*/cores.safetensors"))
    victim.write_bytes(victim.read_bytes()[:-7])
    _, again = build(dense, {"keep_ratio": 0.5, "sweeps": 1})
    assert torch.allclose(small.logits(first), small.logits(again), atol=1e-6)


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_reordered_neurons_lose_less(family: str) -> None:
    dense, knobs = clustered(family), SKEWED
    plans = [build(dense, {**knobs, "permutation": permutation}) for permutation in ("none", "cluster")]
    (stored, _), (moved, _) = plans
    assert stored.hash != moved.hash
    assert stored.parameters == moved.parameters
    assert any("reordered" in record.size for record in moved.records())
    known = {unit.name: unit for unit in units(dense.module)}
    units_lost: dict[str, list[float]] = {}
    for k, (plan, model) in enumerate(plans):
        for name, V in as_stored(plan, model, dense).items():
            units_lost.setdefault(unit_of(name), [0.0, 0.0])[k] += lost(stored_weight(dense, name), V)
    for name, (before, after) in units_lost.items():
        unit = known.get(name)
        if unit is None:
            assert after == pytest.approx(before, rel=1e-6)
        else:  # whole heads hardly move what a cut sees
            assert after < (before if unit.heads else 0.9 * before)


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        ("llama", ()),
        ("llama", ("gate_proj", "o_proj")),
        ("qwen2", ("down_proj", "k_proj")),
        ("opt", ("fc1", "q_proj")),
        ("gpt2", ("c_fc",)),
        ("neox", ("dense_4h_to_h",)),
    ],
)
def test_a_reordered_model_is_that_of_its_layers_put_back_in_order(
    family: str, kept: tuple[str, ...]
) -> None:
    """Also where layers that stay dense, or biases, have to follow those that are factorised."""
    dense, asked = clustered(family), candidate({**SKEWED, "permutation": "cluster"})
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    plan = plan_of(profiler.profile(preparations_of(asked)), asked)
    layers = tuple(
        Dense(shape.out_features, shape.in_features) if shape.type in kept else layer
        for shape, layer in plan.named()
    )
    plan = small.by_hand(plan, layers)
    moved = {unit_of(record.layer) for record in plan.records() if "reordered" in record.size}
    assert moved == {unit.name for unit in units(dense.module)}
    model = compressed(profiler, asked, plan)
    expected = shared_copy(dense.module)
    for name, W in as_stored(plan, model, dense).items():
        linear, bias = nn.Linear(W.shape[1], W.shape[0]), bias_of(dense.module.get_submodule(name))
        linear.weight = nn.Parameter(W)
        linear.bias = nn.Parameter(torch.zeros(len(W)) if bias is None else bias)
        replace(expected, name, linear)
    difference = small.logits(model) - small.logits(expected)
    assert torch.linalg.norm(difference) < 1e-4 * torch.linalg.norm(small.logits(expected))


def _renamed(dense: DenseModel, digest: str) -> DenseModel:
    return DenseModel(
        dense.source, dense.module, dense.tokenizer, digest, dense.max_context, dense.directory, dense.commit
    )


def test_a_model_of_unknown_structure_keeps_its_order_and_the_plan_says_so() -> None:
    dense = clustered("llama")
    config: Any = dense.module.config
    config.model_type = "unheard_of"
    plan, model = build(_renamed(dense, "unheard-of"), {"keep_ratio": 0.4, "permutation": "cluster"})
    assert all(record.size.endswith("neurons as stored") for record in plan.records())
    same, stored = build(_renamed(dense, "unheard-of"), {"keep_ratio": 0.4})
    assert plan.hash == same.hash
    assert torch.equal(small.logits(model), small.logits(stored))


def test_half_a_unit_cannot_be_reordered_by_hand(profile: ModelProfile, llama: DenseModel) -> None:
    asked = candidate({"keep_ratio": 0.4, "permutation": "cluster"})
    plan = plan_of(profile, asked)
    layers = [
        mpo_plan.Mpo(layer.out_sites, layer.in_sites, layer.bonds, neurons="reordered")
        if isinstance(layer, mpo_plan.Mpo) and shape.type in ("gate_proj", "up_proj")
        else mpo_plan.Mpo(layer.out_sites, layer.in_sites, layer.bonds)
        if isinstance(layer, mpo_plan.Mpo)
        else layer
        for shape, layer in plan.named()
    ]
    broken = small.by_hand(plan, layers)
    with pytest.raises(Unsupported, match=r"layers\.0\.mlp: neurons reordered in some layers only"):
        compressed(Profiler(llama, small.corpus(), small.CONTEXT), asked, broken)


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (mpo_plan.Mpo((4, 4), (4, 8), (4,)), r"q_proj[\s\S]*its features, 32 x 32"),
        (mpo_plan.Mpo((8, 4), (4, 8), (4,)), r"cores of shapes[\s\S]*mpo2-ascending has them up to"),
    ],
)
def test_a_hand_written_plan_with_other_sites_is_refused(
    layer: mpo_plan.Mpo, named: str, profile: ModelProfile, llama: DenseModel
) -> None:
    asked = candidate({"bond_dimension": 4})
    plan = plan_of(profile, asked)
    broken = small.by_hand(plan, (layer, *plan.layers[1:]))
    with pytest.raises(Unsupported, match=named):
        compressed(Profiler(llama, small.corpus(), small.CONTEXT), asked, broken)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("sites", [2, 3, 4])
def test_keep_ratio_is_met_from_below_within_the_smallest_step(
    keep: float, sites: int, profile: ModelProfile
) -> None:
    plan = plan_of(profile, candidate({"keep_ratio": keep, "sites": sites}))
    kept = plan.linear_parameters / profile.architecture.linear_parameters
    assert keep - 0.01 <= kept <= keep


def test_adapted_bonds_are_the_same_in_either_order_of_the_neurons() -> None:
    dense, plans = clustered("llama"), []
    for permutation in ("none", "cluster"):
        asked = candidate({"keep_ratio": 0.4, "bonds": "adapted", "permutation": permutation})
        profile = Profiler(dense, small.corpus(), small.CONTEXT).profile(preparations_of(asked))
        plans.append(plan_of(profile, asked))
    assert any("reordered" in record.size for record in plans[1].records())
    assert plans[0].parameters == plans[1].parameters
    assert [getattr(layer, "bonds", ()) for layer in plans[0].layers] == [
        getattr(layer, "bonds", ()) for layer in plans[1].layers
    ]


def test_a_higher_threshold_keeps_more_weights(profile: ModelProfile) -> None:
    for sites in (2, 3):
        kept = [
            plan_of(profile, candidate({"threshold": share, "sites": sites})).linear_parameters
            for share in (0.2, 0.4, 0.6)
        ]
        assert kept == sorted(set(kept))


def test_named_factors_that_miss_a_layer_are_refused(profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match="no factors for a layer of 16 x 32"):
        plan_of(profile, candidate({"bond_dimension": 3, "factorisation": "4x8:8x4"}))
    with pytest.raises(Unsupported, match=r"'4x9:8x4' multiplies to 36 x 32[\s\S]*the layers are 32 x 32"):
        plan_of(profile, candidate({"bond_dimension": 3, "factorisation": "4x9:8x4"}))


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"keep_ratio": 0.5, "bond_dimension": 4}, "exactly one of bond_dimension, threshold, keep_ratio"),
        ({"budget": "threshold", "keep_ratio": 0.5}, "budget is threshold, but keep_ratio is given"),
        ({"keep_ratio": 0.5, "factorisation": "even"}, "'even' is neither a rule"),
        ({"keep_ratio": 0.5, "sweeps": 5}, "sweeps"),
        ({"keep_ratio": 0.5, "permutation": "random"}, "permutation"),
        ({"bond_dimension": 4, "bonds": "adapted"}, "shares out a keep_ratio .given: bond_dimension"),
    ],
)
def test_wrong_knobs_are_refused(knobs: dict[str, Any], named: str, profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match=named):
        plan_of(profile, candidate(knobs))


def test_a_space_prepares_every_combination_it_may_ask_for() -> None:
    values: dict[str, tuple[Any, ...]] = {
        "sites": (2, 3),
        "factorisation": ("skewed", "4x8:8x4"),
        "permutation": ("none", "cluster"),
        "sweeps": (0, 1),
        "bonds": ("equal", "adapted"),
    }
    stored = [MpoBasis(2, "skewed"), MpoBasis(3, "skewed"), MpoBasis(2, "4x8:8x4")]
    found = Mpo().preparations(values)
    assert set(found) == {*stored, *map(ReorderedBasis, stored), *map(BondCurves, stored), WEIGHTED}
    least = {**values, "permutation": ("none",), "sweeps": (0,), "bonds": ("equal",)}
    assert Mpo().preparations(least) == tuple(stored)


def test_damage_falls_with_the_weights_kept(profile: ModelProfile) -> None:
    for sweeps in (0, 1):
        damages = [
            Mpo().damage(profile, plan_of(profile, candidate({"keep_ratio": keep, "sweeps": sweeps})).layers)
            for keep in (0.2, 0.4, 0.6)
        ]
        assert (damages[0] > damages[1]).all()
        assert (damages[1] > damages[2]).all()
        assert ((damages[0] <= 1) & (damages[2] > 0)).all()


@pytest.mark.parametrize("sweeps", [0, 2])
def test_damage_is_less_in_a_better_order(sweeps: int) -> None:
    dense, damages = clustered("llama"), []
    for permutation in ("none", "cluster"):
        asked = candidate({"keep_ratio": 0.4, "permutation": permutation, "sweeps": sweeps})
        profile = Profiler(dense, small.corpus(), small.CONTEXT).profile(preparations_of(asked))
        damages.append(Mpo().damage(profile, plan_of(profile, asked).layers))
    is_mlp = ~profile.is_attention
    assert (damages[1][is_mlp] < damages[0][is_mlp]).all()
    assert (damages[1] <= damages[0]).all()


def test_swept_cores_and_orders_take_no_more_room_than_the_dense_layers(profile: ModelProfile) -> None:
    store, dense = FactorStore(profile.key), profile.architecture.linear_parameters
    basis = ReorderedBasis(MpoBasis(2))
    kept = [
        sum(t.numel() for t in store.load(basis.name, layer.name).values())
        for layer in profile.architecture.layers
        if f"{layer.name}@order" in profile.arrays[basis.name]
    ]
    assert 0 < sum(kept) <= dense
