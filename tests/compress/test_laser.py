from typing import Any

import pytest
import torch
from torch import nn

from hpo.compress.applying import compressed
from hpo.compress.bases import PLAIN
from hpo.compress.laser_plan import Truncated, truncated
from hpo.compress.plan import Plan
from hpo.compress.planner import features_of, plan_of
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import Profiler, build_profile
from hpo.compress.surgery import weight_of
from hpo.errors import Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small


def candidate(**knobs: Any) -> Candidate:
    return Candidate.of({"factorise": "laser", **{f"factorise.{k}": v for k, v in knobs.items()}})


def touched(plan: Plan) -> list[str]:
    return [shape.name[len("model.layers.") :] for shape, layer in plan.named() if layer.kind != "dense"]


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"types": "down_proj"}, ["0.mlp.down_proj", "1.mlp.down_proj"]),
        ({"types": "down_proj", "first_block": 1}, ["1.mlp.down_proj"]),
        ({"types": "down_proj", "last_block": 0}, ["0.mlp.down_proj"]),
        ({"first_block": 1}, ["1.mlp.gate_proj", "1.mlp.up_proj", "1.mlp.down_proj"]),
        ({"types": "attention", "last_block": 0}, [f"0.self_attn.{name}_proj" for name in "qkvo"]),
    ],
)
def test_only_the_chosen_types_and_blocks_are_touched(
    knobs: dict[str, Any], expected: list[str], profile: ModelProfile
) -> None:
    assert touched(plan_of(profile, candidate(rho=0.1, **knobs))) == expected


def test_all_types_are_all_layers(profile: ModelProfile) -> None:
    assert len(touched(plan_of(profile, candidate(rho=0.1, types="all")))) == len(profile.architecture.layers)


def test_the_rank_is_a_share_of_the_smaller_side(profile: ModelProfile) -> None:
    plan = plan_of(profile, candidate(rho=0.25, types="all"))
    for shape, layer in plan.named():
        assert layer.costs.size == f"rank {min(shape.out_features, shape.in_features) // 4}"


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"types": "down_prj"}, "did you mean 'down_proj'"),
        ({"types": ""}, "allowed: all, attention"),
        ({"first_block": 2}, "whose blocks are 0 to 1"),
        ({"first_block": 1, "last_block": 0}, "the first not above the last"),
        ({"last_block": 9}, "blocks 0 to 9"),
        ({"rho": 0.0}, "rho"),
        ({"store": "ram"}, "store"),
    ],
)
def test_what_the_model_does_not_have_is_refused(
    knobs: dict[str, Any], named: str, profile: ModelProfile
) -> None:
    with pytest.raises(Unsupported, match=named):
        plan_of(profile, candidate(**{"rho": 0.1, **knobs}))


def test_a_matrix_stored_whole_costs_what_it_did_and_damages_the_same(profile: ModelProfile) -> None:
    factors, whole = (plan_of(profile, candidate(rho=0.2, store=store)) for store in ("factors", "dense"))
    assert whole.parameters == plan_of(profile, Candidate()).parameters > factors.parameters
    assert whole.hash not in ("dense", factors.hash)
    columns = slice(3, 5)  # predicted damage of attention and MLP
    assert features_of(profile, whole)[columns].tolist() == features_of(profile, factors)[columns].tolist()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("rho", [0.2, 0.8])
def test_a_matrix_stored_whole_is_the_truncated_one(family: str, rho: float) -> None:
    """Below break-even from the cache, above it made for the occasion; biases and the rest stay."""
    dense = small.dense_model(family)
    profile = build_profile(dense, small.corpus(), small.CONTEXT, [PLAIN])
    asked = candidate(rho=rho, types="all", store="dense")
    plan = plan_of(profile, asked)
    model = compressed(Profiler(dense, small.corpus(), small.CONTEXT), asked, plan)
    for shape, layer in plan.named():
        assert isinstance(layer, Truncated)
        old, new = dense.module.get_submodule(shape.name), model.get_submodule(shape.name)
        assert type(new) is type(old)
        u, s, vh = torch.linalg.svd(weight_of(old).double(), full_matrices=False)
        best = (u[:, : layer.rank] * s[: layer.rank]) @ vh[: layer.rank]
        assert torch.allclose(weight_of(new).double(), best, atol=1e-5)
        assert getattr(new, "bias", None) is getattr(old, "bias", None)


def test_both_ways_to_store_compute_the_same(llama: DenseModel, profile: ModelProfile) -> None:
    def logits(store: str) -> torch.Tensor:
        asked = candidate(rho=0.2, store=store)
        plan = plan_of(profile, asked)
        model: nn.Module = compressed(Profiler(llama, small.corpus(), small.CONTEXT), asked, plan)
        return small.logits(model)

    assert torch.allclose(logits("factors"), logits("dense"), atol=1e-3)


def test_plans_of_truncated_matrices_check_themselves() -> None:
    assert truncated(16, 12, 12).kind == "dense"
    assert Truncated(16, 12, 3).costs.parameters == 192
    for rank in (0, 13):
        with pytest.raises(Unsupported, match=r"16 x 12\n  allowed: 1 to 12"):
            Truncated(16, 12, rank)
