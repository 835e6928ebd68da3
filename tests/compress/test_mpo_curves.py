"""What bonds are worth, measured on small models, and the plans that follow from it."""

from typing import Any

import numpy as np
import pytest
import torch

from hpo.compress import mpo_plan
from hpo.compress.applying import compressed
from hpo.compress.architecture import LayerShape
from hpo.compress.layer_plan import Dense, LayerPlan
from hpo.compress.mpo import Mpo
from hpo.compress.mpo_basis import MpoBasis
from hpo.compress.mpo_bonds import bonds_for_budget, largest_bond
from hpo.compress.mpo_curves import SHARES, SLICED, SWEPT, WEIGHTS, BondCurves
from hpo.compress.mpo_math import sliced
from hpo.compress.plan import Plan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.profiling import Profiler
from hpo.compress.surgery import shared_copy, weight_of
from hpo.compress.sweep_math import swept, weighted_error
from hpo.errors import HpoError
from hpo.measure.likelihood import score
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small

TRIED = 1


def curves(profiler: Profiler, basis: MpoBasis) -> dict[str, Array]:
    preparation = BondCurves(basis)
    return dict(profiler.profile([preparation]).arrays[preparation.name])


@pytest.fixture(scope="module")
def profile(llama: DenseModel) -> ModelProfile:
    stored = [MpoBasis(sites) for sites in (2, 3, 4)]
    return Profiler(llama, small.corpus(), small.CONTEXT).profile([*stored, *map(BondCurves, stored)])


def candidate(knobs: dict[str, Any]) -> Candidate:
    return Candidate.of({"factorise": "mpo", **{f"factorise.{k}": v for k, v in knobs.items()}})


def bonds_at(basis: MpoBasis, layer: LayerShape, share: float) -> tuple[int, ...]:
    largest = largest_bond(layer.out_features, layer.in_features, basis.sites, basis.factorisation)
    return bonds_for_budget(basis.split(layer), int(share * layer.parameters), largest)


def alone(profiler: Profiler, basis: MpoBasis, layer: LayerShape, sweeps: int) -> Plan:
    """Return the plan that cuts one layer to the tried budget."""
    layers = profiler.architecture.layers
    plans: list[LayerPlan] = [Dense(shape.out_features, shape.in_features) for shape in layers]
    plans[layers.index(layer)] = mpo_plan.Mpo(
        *basis.split(layer),
        bonds_at(basis, layer, SHARES[TRIED]),
        sweeps=sweeps,
        factorisation=basis.factorisation,
    )
    return Plan(profiler.architecture, tuple(plans))


@pytest.mark.parametrize("basis", [MpoBasis(2), MpoBasis(3, "skewed")])
def test_the_divergence_at_the_tried_budget_is_that_of_the_layer_compressed_alone(
    basis: MpoBasis, llama: DenseModel
) -> None:
    """Without sweeps and with one."""
    profiler = Profiler(llama, small.corpus(), small.CONTEXT)
    found = curves(profiler, basis)
    for chosen in (0, 6):
        layer = profiler.architecture.layers[chosen]
        for sweeps, kind in enumerate((SLICED, SWEPT)):
            plan = alone(profiler, basis, layer, sweeps)
            model = shared_copy(llama.module)
            Mpo().apply(model, plan, profiler.materials([basis]))
            scores = score(model, profiler.calibration.sequences, llama.module)
            assert scores.kl is not None
            apart = float(scores.kl.sum() / scores.tokens.sum())
            at = list(found[f"{layer.name}{WEIGHTS}"]).index(plan.layers[chosen].costs.parameters)
            assert found[f"{layer.name}{kind}"][at] == pytest.approx(apart, rel=1e-4)


def test_curves_are_in_proportion_to_the_squared_errors_of_their_cores(llama: DenseModel) -> None:
    profiler, basis = Profiler(llama, small.corpus(), small.CONTEXT), MpoBasis(3)
    found = curves(profiler, basis)
    for layer in profiler.architecture.layers[:7]:
        W = weight_of(llama.module.get_submodule(layer.name)).detach()
        G = profiler.statistics.gram(layer)
        tensors = basis.cut(layer, W).tensors
        cores = [tensors[f"core{k}"] for k in range(3)]
        tried = list(dict.fromkeys(bonds_at(basis, layer, share) for share in SHARES))
        assert len(found[f"{layer.name}{WEIGHTS}"]) == len(tried) + 1
        starts = [sliced(cores, bonds) for bonds in tried]
        fits = [swept(W, G, start, 1).cores for start in starts]
        for kind, held in ((SLICED, starts), (SWEPT, fits)):
            squares = [1.0, *(weighted_error(W, G, each) ** 2 for each in held)]
            divergences = found[f"{layer.name}{kind}"]
            assert divergences / divergences[0] == pytest.approx(squares, rel=1e-6)


@pytest.mark.parametrize("family", list(small.FAMILIES))
def test_every_layer_has_curves_that_begin_with_nothing_kept(family: str) -> None:
    dense = small.dense_model(family, digest=f"curves-{family}")
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    found = curves(profiler, MpoBasis(2))
    for layer in profiler.architecture.layers:
        weights = found[f"{layer.name}{WEIGHTS}"]
        assert weights[0] == 0
        assert (weights[1:] > weights[:-1]).all()
        assert weights[-1] < layer.parameters
        for kind in (SLICED, SWEPT):
            assert len(found[f"{layer.name}{kind}"]) == len(weights)
            assert (found[f"{layer.name}{kind}"] > 0).all()


def test_a_layer_that_cores_hold_exactly_and_one_of_zeros_have_finite_curves() -> None:
    dense = small.dense_model("llama", digest="curves-exact")
    exact, nothing = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"
    with torch.no_grad():
        weight_of(dense.module.get_submodule(exact)).copy_(torch.kron(torch.randn(4, 4), torch.randn(8, 8)))
        weight_of(dense.module.get_submodule(nothing)).zero_()
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    found = curves(profiler, MpoBasis(2))
    for name in (exact, nothing):
        divergences = found[f"{name}{SWEPT}"]
        assert (divergences > 0).all()
        assert divergences.max() < 100
        assert divergences[1:] == pytest.approx(divergences[1])  # nothing is gained by more than one bond


def test_half_precision_is_judged_as_it_will_be_held() -> None:
    dense = small.dense_model("llama", digest="curves-half")
    dense.module.to(torch.bfloat16)
    profiler = Profiler(dense, small.corpus(), small.CONTEXT)
    found = curves(profiler, MpoBasis(2))
    for layer in profiler.architecture.layers:
        cut, fitted = (found[f"{layer.name}{kind}"] for kind in (SLICED, SWEPT))
        assert np.isfinite(fitted).all()
        assert (fitted[1:] / fitted[0] < cut[1:] / cut[0]).all()


@pytest.mark.parametrize("sweeps", [0, 2])
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("sites", [2, 3, 4])
def test_adapted_bonds_meet_the_ratio_together_and_not_layer_by_layer(
    keep: float, sites: int, sweeps: int, profile: ModelProfile
) -> None:
    knobs = {"keep_ratio": keep, "sites": sites, "sweeps": sweeps}
    equal, adapted = (plan_of(profile, candidate({**knobs, "bonds": how})) for how in ("equal", "adapted"))
    assert equal.hash == plan_of(profile, candidate(knobs)).hash != adapted.hash
    kept = adapted.linear_parameters / profile.architecture.linear_parameters
    assert keep - 0.005 <= kept <= keep
    shares = [layer.costs.parameters / shape.parameters for shape, layer in adapted.named()]
    assert max(shares) - min(shares) > 0.1


def test_adapted_bonds_follow_the_sweeps_where_there_are_any(profile: ModelProfile) -> None:
    knobs = {"keep_ratio": 0.5, "bonds": "adapted"}
    without, one, two = (plan_of(profile, candidate({**knobs, "sweeps": sweeps})) for sweeps in (0, 1, 2))
    bonds = [[getattr(layer, "bonds", ()) for layer in plan.layers] for plan in (without, one, two)]
    assert bonds[0] != bonds[1] == bonds[2]


@pytest.mark.parametrize("sweeps", [0, 1])
def test_adapted_bonds_lose_less_where_some_layers_matter_less(sweeps: int) -> None:
    """Half of the layers hardly move the output; even bonds spend as much on them."""
    dense = small.dense_model("llama", digest="unequal-blocks")
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weight_of(dense.module.get_submodule(f"model.layers.1.{name}")).mul_(0.01)
    apart, exact, profiler = [], small.logits(dense.module), Profiler(dense, small.corpus(), small.CONTEXT)
    for bonds in ("equal", "adapted"):
        asked = candidate({"keep_ratio": 0.5, "sweeps": sweeps, "bonds": bonds})
        plan = plan_of(profiler.profile(preparations_of(asked)), asked)
        model = compressed(profiler, asked, plan)
        apart.append(float(torch.linalg.norm(small.logits(model) - exact)))
    shares = [layer.costs.parameters / shape.parameters for shape, layer in plan.named()]
    half = len(shares) // 2
    assert sum(shares[half:]) < 0.8 * sum(shares[:half])
    assert apart[1] < 0.95 * apart[0]


def test_a_profile_without_the_curves_says_so(profile: ModelProfile) -> None:
    bare = ModelProfile(profile.architecture, profile.key, {})
    with pytest.raises(HpoError, match="no 'mpo2-ascending-curves'"):
        plan_of(bare, candidate({"keep_ratio": 0.5, "bonds": "adapted"}))
