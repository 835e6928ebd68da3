"""Plans of the low-rank methods: ranks from knobs on a model, and what is measured for them."""

from typing import Any

import numpy as np
import pytest
import torch

from hpo.compress.applying import compressed
from hpo.compress.bases import FISHER, PLAIN, WHITENED, AsvdBasis
from hpo.compress.layer_plan import LowRank
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_for, preparations_of
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import Profiler, build_profile
from hpo.compress.sensitivity import (
    BLOCK_INFLUENCE,
    SHARES,
    Sensitivity,
    beginning,
    ranks_tried,
    sensitivity_of,
)
from hpo.compress.surgery import weight_of
from hpo.errors import HpoError, Unsupported
from hpo.measure.quality import mean_nll
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Choice, Float, SearchSpace
from tests.compress import small

ALLOCATIONS = ("uniform", "spectral", "sensitivity", "waterfill", "softmax")


def candidate(method: str, **knobs: Any) -> Candidate:
    return Candidate.of({"factorise": method, **{f"factorise.{k}": v for k, v in knobs.items()}})


def plan(profile: ModelProfile, *method: str, **knobs: Any) -> Plan:
    """Return the plan of whitened SVD unless another method is named."""
    return plan_of(profile, candidate(*(method or ("whitened_svd",)), **knobs))


def kept(found: Plan) -> float:
    return found.linear_parameters / found.architecture.linear_parameters


def ranks(found: Plan) -> dict[str, int]:
    """Return the rank of each layer that is not dense, by its name without the model's."""
    named = found.named()
    return {
        shape.name[len("model.layers.") :]: layer.rank for shape, layer in named if isinstance(layer, LowRank)
    }


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("keep", [0.3, 0.45, 0.6, 0.85])
def test_every_allocation_meets_the_ratio_it_is_asked(
    allocation: str, keep: float, profile: ModelProfile
) -> None:
    for more in ({}, {"floor": 0.0}, {"down": 2.0, "attention": 0.5}):
        assert kept(plan(profile, keep_ratio=keep, allocation=allocation, **more)) == pytest.approx(
            keep, abs=0.005
        )


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_no_layer_falls_below_the_floor(allocation: str, profile: ModelProfile) -> None:
    uniform = ranks(plan(profile, keep_ratio=0.5))
    floored = ranks(plan(profile, keep_ratio=0.5, allocation=allocation, floor=0.8, temperature=0.01))
    assert all(rank >= int(0.8 * uniform[name]) - 1 for name, rank in floored.items())


def test_rules_but_uniform_give_ranks_of_their_own(profile: ModelProfile) -> None:
    hashes = {plan(profile, keep_ratio=0.5, allocation=name).hash for name in ALLOCATIONS}
    assert len(hashes) == len(ALLOCATIONS)


def test_protected_blocks_stay_dense_and_count_as_kept(profile: ModelProfile) -> None:
    found = plan(profile, keep_ratio=0.7, protect_first=1)
    assert all(layer.kind == "dense" for shape, layer in found.named() if shape.block == 0)
    assert all(layer.kind == "low_rank" for shape, layer in found.named() if shape.block == 1)
    assert kept(found) == pytest.approx(0.7, abs=0.005)
    by_rank = plan(profile, rank=4, protect_last=1)
    assert {name[0] for name in ranks(by_rank)} == {"0"}


def test_protected_blocks_that_hold_more_than_is_kept_are_refused(profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match=r"keep_ratio=0\.4, but the protected blocks alone hold 0\.5"):
        plan(profile, keep_ratio=0.4, protect_last=1)
    with pytest.raises(Unsupported, match="protect fewer"):
        plan(profile, keep_ratio=0.9, protect_first=1, protect_last=1)


def test_multipliers_raise_the_layers_they_name_at_equal_cost(profile: ModelProfile) -> None:
    plain = plan(profile, keep_ratio=0.4)
    for more, favoured in (
        ({"attention": 2.0}, "self_attn"),
        ({"down": 2.0}, "down_proj"),
        ({"block_weight.0": 1.0, "block_weight.1": 2.0}, "1."),
    ):
        raised, before = ranks(plan(profile, keep_ratio=0.4, **more)), ranks(plain)
        for name, rank in raised.items():
            is_favoured = favoured in name
            assert rank > before[name] if is_favoured else rank <= before[name], name


@pytest.mark.parametrize("family", ["llama", "gpt2", "neox", "opt"])
def test_the_last_matrix_of_an_mlp_is_found_in_every_family(family: str) -> None:
    dense = small.dense_model(family)
    profile = build_profile(dense, small.corpus(), small.CONTEXT, [WHITENED])
    before, after = (plan(profile, keep_ratio=0.4, down=down) for down in (1.0, 3.0))
    raised = [
        shape.type
        for (shape, new), old in zip(after.named(), before.layers, strict=True)
        if new.costs.parameters > old.costs.parameters
    ]
    last = {"llama": "down_proj", "gpt2": "c_proj", "neox": "dense_4h_to_h", "opt": "fc2"}[family]
    assert raised == [last, last]


def test_block_weights_must_be_as_many_as_blocks(profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match="3 block weights for 2 blocks"):
        plan(profile, keep_ratio=0.5, **{f"block_weight.{k}": 1.0 for k in range(3)})
    with pytest.raises(Unsupported, match="block_weight"):
        plan(profile, keep_ratio=0.5, **{"block_weight.0": 0.0, "block_weight.1": 1.0})


def test_a_multiple_without_room_gives_way_to_the_ratio(profile: ModelProfile) -> None:
    # The widest layers have a break-even rank of 19: 8 everywhere is more than 15 % of the weights.
    assert set(ranks(plan(profile, keep_ratio=0.6, rank_multiple=8)).values()) <= {8, 16}
    found = plan(profile, keep_ratio=0.15, rank_multiple=8)
    assert kept(found) == pytest.approx(0.15, abs=0.005)


def test_less_than_rank_one_everywhere_gives_rank_one(profile: ModelProfile) -> None:
    assert set(ranks(plan(profile, keep_ratio=0.01)).values()) == {1}


def test_a_rank_above_a_layers_cap_leaves_it_dense(profile: ModelProfile) -> None:
    found = plan(profile, rank=15)
    caps = {layer.name: layer.break_even_rank for layer in profile.architecture.layers}
    for shape, layer in found.named():
        assert layer.kind == ("low_rank" if caps[shape.name] > 15 else "dense")


def test_asvd_names_its_basis_in_the_plan_and_slices_that(llama: DenseModel, profile: ModelProfile) -> None:
    plans = {alpha: plan(profile, "asvd", rank=4, alpha=alpha) for alpha in (0.5, 1.0)}
    assert plans[0.5].hash != plans[1.0].hash
    asked = candidate("asvd", rank=4, alpha=1.0)
    model: Any = compressed(Profiler(llama, small.corpus(), small.CONTEXT), asked, plans[1.0])
    layer = profile.architecture.layers[0]
    store = Profiler(llama, small.corpus(), small.CONTEXT).store
    expected = store.load("asvd-1", layer.name)["left"][:, :4]
    assert torch.equal(model.get_submodule(layer.name).left, expected)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 2.0])
def test_alphas_off_the_grid_are_refused(alpha: float, profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match=r"alpha is one of 0\.25, 0\.5, 0\.75, 1\.0"):
        plan(profile, "asvd", rank=4, alpha=alpha)


def test_a_space_prepares_what_its_candidates_may_slice_and_no_more() -> None:
    def prepared(method: str, **parameters: Any) -> set[str]:
        named = {f"factorise.{name}": value for name, value in parameters.items()}
        space = SearchSpace(parameters={"factorise": Choice(choices=(method,)), **named})
        return {preparation.name for preparation in preparations_for(space)}

    assert prepared("svd") == {"plain"}
    assert prepared("asvd") == {"asvd-0.5"}
    assert prepared("asvd", alpha=Choice(choices=(0.25, 1.0))) == {"asvd-0.25", "asvd-1"}
    grid = {"asvd-0.25", "asvd-0.5", "asvd-0.75", "asvd-1"}
    assert prepared("asvd", alpha=Float(low=0.25, high=1.0, step=0.25)) == grid
    rules = Choice(choices=("uniform", "sensitivity", "softmax"))
    assert prepared("fwsvd", allocation=rules) == {"fwsvd", "fwsvd.sensitivity", "block_influence"}


def test_a_knob_that_is_set_under_a_condition_may_also_have_its_default() -> None:
    space = SearchSpace(
        parameters={
            "factorise": Choice(choices=("asvd",)),
            "factorise.budget": Choice(choices=("rank", "threshold")),
            "factorise.alpha": Choice(choices=(1.0,), when={"factorise.budget": ("rank",)}),
        }
    )
    assert {preparation.name for preparation in preparations_for(space)} == {"asvd-0.5", "asvd-1"}


def test_a_profile_without_the_measurement_says_what_it_has(llama: DenseModel) -> None:
    bare = build_profile(llama, small.corpus(), small.CONTEXT, [WHITENED])
    with pytest.raises(HpoError, match=r"has no 'whitened\.sensitivity'\n.*it has: whitened"):
        plan(bare, keep_ratio=0.5, allocation="sensitivity")


def test_sensitivities_are_the_rise_of_the_loss_with_one_layer_cut(
    llama: DenseModel, profile: ModelProfile
) -> None:
    text, layer = small.corpus(), profile.architecture.layers[5]
    asked = candidate("svd", rank=1)
    rises = profile.prepared(sensitivity_of("plain"))[layer.name]
    tried = ranks_tried(layer)
    assert len(rises) == len(SHARES) == len(tried)
    before = mean_nll(llama.module, text)
    for rank, rise in zip(tried, rises, strict=True):
        layers = tuple(
            LowRank(layer.out_features, layer.in_features, rank) if shape is layer else dense
            for shape, dense in plan_of(profile, Candidate()).named()
        )
        alone = small.by_hand(plan_of(profile, asked), layers)
        model = compressed(Profiler(llama, text, small.CONTEXT), asked, alone)
        assert mean_nll(model, text) - before == pytest.approx(float(rise), abs=1e-4)


def test_a_layer_that_may_be_cut_for_nothing_is_cut_most() -> None:
    dense = small.dense_model(digest="test-one-layer-of-rank-one")
    name = "model.layers.1.mlp.up_proj"
    with torch.no_grad():
        weight = dense.module.get_parameter(f"{name}.weight")
        weight.copy_(weight[:, :1] @ weight[:1] / 4)
    asked = candidate("svd", keep_ratio=0.5, allocation="sensitivity", floor=0.1)
    profile = build_profile(dense, small.corpus(), small.CONTEXT, preparations_of(asked))
    found = ranks(plan_of(profile, asked))
    assert found["1.mlp.up_proj"] <= 3 < ranks(plan(profile, "svd", keep_ratio=0.5))["1.mlp.up_proj"]


def test_no_more_than_the_beginning_of_the_text_is_judged_by() -> None:
    text = small.corpus(8)
    assert len(beginning(text, 3 * small.CONTEXT + 5).sequences) == 3
    assert len(beginning(text, 5).sequences) == 1
    assert len(beginning(text, 10**6).sequences) == 8


def test_fisher_factors_keep_the_rows_the_loss_minds(llama: DenseModel, profile: ModelProfile) -> None:
    """By the norm that FWSVD minimises its factors are the best of all bases, and so ASVD's by its own."""
    profiler = Profiler(llama, small.corpus(), small.CONTEXT)
    for layer in profile.architecture.layers[:7]:
        weight = weight_of(llama.module.get_submodule(layer.name))
        rows, columns = (
            profiler.statistics.row_fisher(layer).sqrt(),
            profiler.statistics.magnitude(layer) ** 0.5,
        )
        errors = {"fwsvd": [], "asvd-0.5": []}  # type: dict[str, list[float]]
        for basis in (FISHER, AsvdBasis(0.5), PLAIN, WHITENED):
            factors = profiler.store.load(basis.name, layer.name)
            lost = (weight - factors["left"][:, :4] @ factors["right"][:4]).double()
            errors["fwsvd"].append(float(torch.linalg.norm(rows[:, None] * lost)))
            errors["asvd-0.5"].append(float(torch.linalg.norm(lost * columns)))
        assert np.argmin(errors["fwsvd"]) == 0
        assert np.argmin(errors["asvd-0.5"]) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["svd", "asvd", "fwsvd", "whitened_svd"])
def test_half_precision_models_are_compressed_in_their_precision(method: str, dtype: torch.dtype) -> None:
    dense = small.dense_model(digest=f"test-{dtype}")
    dense.module.to(dtype)
    asked = candidate(method, keep_ratio=0.5, refit=True)
    profiler = Profiler(dense, small.corpus(4), small.CONTEXT)
    model = compressed(profiler, asked, plan_of(profiler.profile(preparations_of(asked)), asked))
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.isfinite(small.logits(model)).all()


def test_block_influence_is_kept_for_planning(profile: ModelProfile) -> None:
    influences = profile.prepared(BLOCK_INFLUENCE.name)["influence"]
    assert influences.shape == (2,)
    assert (influences > 0).all()


def test_equal_preparations_are_one() -> None:
    assert Sensitivity(AsvdBasis(0.5)) == Sensitivity(AsvdBasis(0.5)) != Sensitivity(AsvdBasis(1.0))
    assert len({Sensitivity(PLAIN), Sensitivity(PLAIN), Sensitivity(WHITENED)}) == 2
