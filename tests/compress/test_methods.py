"""The contract of every registered factoriser, on real (small, random) models."""

from typing import Any

import pytest
import torch
from torch import nn

from hpo.compress.applying import compressed
from hpo.compress.bases import PLAIN, WHITENED
from hpo.compress.layers import LowRankLinear
from hpo.compress.mpo_basis import MpoBasis
from hpo.compress.mpo_sites import balanced_sites
from hpo.compress.plan import Plan
from hpo.compress.planner import features_of, plan_of
from hpo.compress.profile import ModelProfile
from hpo.compress.profiling import Profiler, build_profile
from hpo.compress.recipe import methods
from hpo.compress.surgery import count_macs
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small

KNOBS: dict[str, list[dict[str, Any]]] = {
    "svd": [
        {"keep_ratio": 0.5},
        {"keep_ratio": 0.5, "allocation": "spectral"},
        {"keep_ratio": 0.4, "attention": 1.5, "down": 1.2, "rank_multiple": 2, "refit": True},
        {"keep_ratio": 0.7, "allocation": "sensitivity", "protect_last": 1},
        {"keep_ratio": 0.5, "allocation": "waterfill", "block_weight.0": 2.0, "block_weight.1": 1.0},
        {"keep_ratio": 0.5, "allocation": "softmax", "temperature": 0.5},
        {"rank": 5},
        {"threshold": 0.7},
    ],
    "asvd": [{"keep_ratio": 0.5}, {"keep_ratio": 0.5, "alpha": 1.0, "refit": True}],
    "fwsvd": [{"keep_ratio": 0.5}],
    "laser": [
        {"rho": 0.2},
        {"rho": 0.3, "types": "down_proj", "first_block": 1, "store": "dense"},
        {"rho": 0.9, "types": "all", "store": "dense"},
    ],
    "mpo": [
        {"bond_dimension": 6},
        {"bond_dimension": 4, "sites": 3, "contraction": "chain"},
        {"bond_dimension": 3, "sites": 4, "contraction": "rebuild"},
        {"bond_dimension": 6, "contraction": "cached"},
        {"keep_ratio": 0.5, "sweeps": 2, "permutation": "cluster"},
        {"keep_ratio": 0.5, "sites": 3, "sweeps": 1, "bonds": "adapted", "permutation": "cluster"},
        {"keep_ratio": 0.4, "sites": 3, "contraction": "merged", "permutation": "cluster"},
        {"threshold": 0.6, "sites": 4, "factorisation": "skewed", "contraction": "merged", "sweeps": 1},
        {"keep_ratio": 0.3, "factorisation": "8x4:4x8, 4x4:8x4, 6x8:8x4, 4x8:8x6", "contraction": "chain"},
    ],
    "basis_sharing": [
        {"keep_ratio": 0.5},
        {"keep_ratio": 0.4, "allocation": "spectral", "coefficients": "common"},
        {"rank": 6, "group": 4, "share": "mlp"},
    ],
    "modegpt": [
        {"keep_ratio": 0.6},
        {"keep_ratio": 0.7, "order": "leverage", "allocation": "softmax", "query_key": 1.0},
        {"keep_ratio": 0.8, "allocation": "sensitivity", "multiple": 8, "protect_first": 1},
    ],
    "eora": [
        {"rank": 0},
        {"rank_ratio": 0.2},
        {"rank": 3, "bits": 3, "group_size": 32, "symmetric": False, "factor_bits": 8},
    ],
    "caldera": [{"rank": 4, "iterations": 2}, {"rank": 40, "factor_bits": 4, "iterations": 1}],
    "lplr": [{"rank_ratio": 0.5}, {"rank": 99, "bits": 8, "iterations": 1}],
}
KNOBS["whitened_svd"] = KNOBS["svd"]
CASES = [(method, knobs) for method in methods("factorise") for knobs in KNOBS[method]]


def candidate(method: str, knobs: dict[str, Any]) -> Candidate:
    return Candidate.of({"factorise": method, **{f"factorise.{k}": v for k, v in knobs.items()}})


def apply(dense: DenseModel, asked: Candidate, plan: Plan) -> nn.Module:
    return compressed(Profiler(dense, small.corpus(), small.CONTEXT), asked, plan)


def test_every_registered_factoriser_is_under_contract() -> None:
    assert set(KNOBS) == set(methods("factorise"))


@pytest.mark.parametrize(("method", "knobs"), CASES)
def test_the_plan_counts_what_the_model_holds_and_computes(
    method: str, knobs: dict[str, Any], llama: DenseModel, profile: ModelProfile
) -> None:
    asked = candidate(method, knobs)
    plan = plan_of(profile, asked)
    model = apply(llama, asked, plan)
    small.logits(model)  # a cached matrix is built by the first forward, and counted by none after it
    macs = count_macs(model, small.CONTEXT)
    assert macs == plan.prefill_macs
    held, dense = Held.by(model), Held.by(llama.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - dense.buffer_bytes == plan.weight_bytes


@pytest.mark.parametrize(("method", "knobs"), CASES)
def test_planning_is_pure_and_features_are_shares(
    method: str, knobs: dict[str, Any], profile: ModelProfile
) -> None:
    first, second = (plan_of(profile, candidate(method, knobs)) for _ in range(2))
    assert first.hash == second.hash != "dense"
    features = features_of(profile, first)
    assert len(features) == len(features_of(profile, plan_of(profile, Candidate())))
    assert ((features >= 0) & (features <= 4)).all()
    assert features[0] == pytest.approx(first.linear_parameters / profile.architecture.linear_parameters)


@pytest.mark.parametrize(("method", "knobs"), CASES)
def test_applying_leaves_the_dense_model_as_it_was(
    method: str, knobs: dict[str, Any], llama: DenseModel, profile: ModelProfile
) -> None:
    before = small.logits(llama.module)
    asked = candidate(method, knobs)
    model = apply(llama, asked, plan_of(profile, asked))
    assert torch.equal(small.logits(llama.module), before)
    assert torch.isfinite(small.logits(model)).all()
    assert not torch.allclose(small.logits(model), before)
    embedding = "model.embed_tokens.weight"
    assert model.get_parameter(embedding) is llama.module.get_parameter(embedding)


@pytest.mark.parametrize("method", ["svd", "whitened_svd"])
@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_a_model_whose_weights_have_low_rank_is_reproduced(method: str, family: str) -> None:
    """At full rank of the weights the logits are the dense ones: Linear and Conv1D, bias or none."""
    dense = small.dense_model(family, digest=f"low-rank-{family}")
    with torch.no_grad():
        for _, weight in small.weights(dense.module):
            u, s, vh = torch.linalg.svd(weight, full_matrices=False)
            weight.copy_((u[:, :4] * s[:4]) @ vh[:4])
    bases = {"svd": [PLAIN], "whitened_svd": [WHITENED]}[method]
    profile = build_profile(dense, small.corpus(), small.CONTEXT, bases)
    asked = candidate(method, {"rank": 4})
    plan = plan_of(profile, asked)
    model = apply(dense, asked, plan)
    assert any(isinstance(m, LowRankLinear) for m in model.modules())
    assert all(layer.kind == "low_rank" for layer in plan.layers)
    assert relative_error(model, dense) < 1e-4
    assert sum(p.numel() for p in model.parameters()) == plan.parameters


@pytest.mark.parametrize("contraction", ["chain", "rebuild", "cached"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_of_kronecker_products_is_reproduced_by_mpo(family: str, contraction: str) -> None:
    dense = small.dense_model(family, digest=f"kronecker-{family}")
    with torch.no_grad():
        for name, weight in small.weights(dense.module):
            rows, columns = weight.shape
            o, i = balanced_sites(rows, 2), balanced_sites(columns, 2)
            generator = torch.Generator().manual_seed(len(name))
            factors = [torch.randn(o[k], i[k], generator=generator) * 0.3 for k in range(2)]
            weight.copy_(torch.kron(*factors))
    profile = build_profile(dense, small.corpus(), small.CONTEXT, [MpoBasis(2)])
    asked = candidate("mpo", {"bond_dimension": 1, "contraction": contraction})
    assert relative_error(apply(dense, asked, plan_of(profile, asked)), dense) < 1e-4


def relative_error(model: nn.Module, dense: DenseModel) -> float:
    expected = small.logits(dense.module)
    return float(torch.linalg.norm(small.logits(model) - expected) / torch.linalg.norm(expected))


def test_keep_ratio_is_met_within_half_a_rank_of_a_layer(profile: ModelProfile) -> None:
    total = profile.architecture.linear_parameters
    for keep in (0.3, 0.5, 0.7):
        for allocation in ("uniform", "spectral"):
            knobs = {"keep_ratio": keep, "allocation": allocation}
            kept = plan_of(profile, candidate("whitened_svd", knobs)).linear_parameters
            assert keep * total - 80 <= kept <= keep * total


@pytest.mark.parametrize(
    ("method", "knobs", "named"),
    [
        ("svd", {}, "exactly one of keep_ratio, rank, threshold"),
        ("svd", {"keep_ratio": 0.5, "rank": 3}, "exactly one"),
        ("svd", {"keep_ratio": 1.5}, "keep_ratio"),
        ("svd", {"budget": "rank", "keep_ratio": 0.5}, "budget is rank"),
        ("mpo", {}, "bond_dimension"),
        ("mpo", {"bond_dimension": 0}, "bond_dimension"),
        ("mpo", {"bond_dimension": 4, "sites": 7}, "sites"),
        ("mpo", {"bond_dimension": 4, "rank": 2}, "rank"),
    ],
)
def test_wrong_knobs_are_refused_by_name(
    method: str, knobs: dict[str, Any], named: str, profile: ModelProfile
) -> None:
    with pytest.raises(Unsupported, match=named):
        plan_of(profile, candidate(method, knobs))
