"""The contract of every registered trainer, on small random models and a reference model of a few steps."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo import registry
from hpo.compress.method import Trainer
from hpo.compress.plan import TrainPlan
from hpo.compress.planner import plan_of
from hpo.compress.profile import ModelProfile
from hpo.compress.recipe import methods
from hpo.compress.regularisers import CONCENTRATION, NUCLEAR_NORM, STABLE_RANK, Regulariser
from hpo.compress.surgery import linear_layers, weight_of
from hpo.compress.train import MeanOverLayers
from hpo.compress.trained import trained
from hpo.compress.training import split
from hpo.errors import NonFinite, Unsupported
from hpo.models.dense import DenseModel
from hpo.space import Candidate, Value
from tests.compress import small

METHODS = methods("train")
PENALTIES = {
    "concentration": (CONCENTRATION, 100.0),
    "stable_rank": (STABLE_RANK, 30.0),
    "nuclear_norm": (NUCLEAR_NORM, 50.0),
}
"""The measure that a method lowers, and a weight beside which the loss hardly counts."""
SHORT: dict[str, Any] = {"steps": 3, "learning_rate": 3e-3}


def method(name: str) -> Trainer:
    made: Trainer = registry.load("method", name)()
    return made


def planned(name: str, **knobs: Any) -> TrainPlan:
    if name in PENALTIES:
        knobs = {"weight": PENALTIES[name][1], **knobs}
    plan = method(name).plan(method(name).knob_type.model_validate(knobs))
    assert plan is not None
    return plan


def train(dense: DenseModel, name: str, **knobs: Any) -> nn.Module:
    return method(name).train(dense, small.corpus(), planned(name, **knobs))


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def mean(regulariser: Regulariser, model: nn.Module) -> float:
    with torch.no_grad():
        return float(MeanOverLayers(regulariser, 1.0)(model))


def test_every_registered_trainer_is_under_contract() -> None:
    assert {*PENALTIES, "plain"} == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_training_gives_another_model_and_leaves_the_dense_one_as_it_was(
    name: str, llama: DenseModel
) -> None:
    before = values(llama.module)
    model = train(llama, name, **SHORT)
    after = values(model)
    assert all(torch.equal(before[key], value) for key, value in values(llama.module).items())
    assert {key: value.shape for key, value in before.items()} == {k: v.shape for k, v in after.items()}
    assert all(not torch.equal(before[key], value) for key, value in after.items())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_the_same_plan_gives_the_same_weights_and_another_seed_others(name: str, llama: DenseModel) -> None:
    first, second, other = (values(train(llama, name, seed=seed, **SHORT)) for seed in (1, 1, 2))
    layer = "model.layers.0.mlp.up_proj.weight"
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first[layer], other[layer])


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("family", small.FAMILIES)
def test_a_penalty_lowers_what_it_penalises(name: str, family: str) -> None:
    dense = small.dense_model(family)
    regulariser, _ = PENALTIES[name]
    share = {"concentration": 0.004, "stable_rank": 0.15, "nuclear_norm": 0.015}[name]
    knobs = {"steps": 8, "learning_rate": 1e-2}
    free = mean(regulariser, train(dense, "plain", **knobs))
    assert mean(regulariser, train(dense, name, **knobs)) < (1 - share) * free


def test_weights_of_half_precision_are_trained_in_their_precision() -> None:
    dense = small.dense_model("llama", digest="half")
    dense.module.to(torch.bfloat16)
    model = train(dense, "stable_rank", steps=8, learning_rate=1e-2)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert mean(STABLE_RANK, model) < 0.97 * mean(STABLE_RANK, dense.module)


def test_the_penalty_is_the_weight_times_the_mean_over_the_layers(llama: DenseModel) -> None:
    found = []
    for _, module in linear_layers(llama.module):
        s = torch.linalg.svdvals(weight_of(module).double())
        found.append(float(s.sum() / (s**2).sum().sqrt()) / len(s) ** 0.5)
    assert len(found) == 14
    with torch.no_grad():
        penalty = MeanOverLayers(NUCLEAR_NORM, 3.0)(llama.module)
    assert float(penalty) == pytest.approx(3 * sum(found) / 14, rel=1e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_a_weight_of_nothing_is_the_control(name: str) -> None:
    assert planned(name, weight=0, steps=7, seed=3) == planned("plain", steps=7, seed=3)
    assert planned(name, weight=0.5).key != planned(name, weight=0.25).key


@pytest.mark.parametrize("name", METHODS)
def test_no_steps_are_no_training(name: str) -> None:
    knobs = {"steps": 0, "weight": 1.0} if name in PENALTIES else {"steps": 0}
    assert method(name).plan(method(name).knob_type.model_validate(knobs)) is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"train": "stable_rank"}, "train.weight"),
        ({"train": "stable_rank", "train.weight": -1.0}, "train.weight"),
        ({"train": "plain", "train.weight": 1.0}, "train.weight"),
        ({"train": "plain", "train.start": "middle"}, "train.start"),
        ({"train": "plain", "train.start": "scratch", "train.steps": 0}, "at least 1"),
    ],
)
def test_wrong_knobs_are_refused_by_name(given: dict[str, Value], named: str, profile: ModelProfile) -> None:
    with pytest.raises(Unsupported, match=named):
        plan_of(profile, Candidate.of(given))


def test_a_training_alone_is_a_plan_and_makes_another_of_a_truncation(profile: ModelProfile) -> None:
    training: dict[str, Value] = {"train": "stable_rank", "train.weight": 2.0}
    cut: dict[str, Value] = {"factorise": "svd", "factorise.keep_ratio": 0.5}
    alone, both, untrained = (
        plan_of(profile, Candidate.of(given)) for given in (training, training | cut, cut)
    )
    assert len({"dense", alone.hash, both.hash, untrained.hash}) == 4
    assert alone.parameters == profile.architecture.linear_parameters + profile.architecture.other_parameters
    assert both.weight_bytes == untrained.weight_bytes


def test_the_text_by_which_healing_is_judged_is_not_trained_on(llama: DenseModel) -> None:
    corpus = small.corpus(20)
    seen: set[tuple[int, ...]] = set()
    _, held_out = split(corpus)

    def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        seen.update(tuple(row) for row in args[0].tolist())

    # The hook goes along with the copy that is trained.
    handle = llama.module.get_submodule("model.embed_tokens").register_forward_hook(note)
    method("plain").train(llama, corpus, planned("plain", steps=10))
    handle.remove()
    assert len(seen) == 18
    assert not seen & {tuple(row.tolist()) for row in held_out.sequences}


def test_the_cache_gives_back_the_weights_and_a_digest_of_its_own(llama: DenseModel) -> None:
    plans = planned("plain", **SHORT), planned("concentration", **SHORT)
    fresh, again, other = (trained(llama, small.corpus(), plans[i]) for i in (0, 0, 1))
    loaded = values(again.module)
    assert all(torch.equal(loaded[key], value) for key, value in values(fresh.module).items())
    assert len({llama.digest, fresh.digest, other.digest}) == 3
    assert fresh.digest == again.digest


def test_a_broken_weight_is_refused_by_name() -> None:
    dense = small.dense_model("llama", digest="broken")
    layer = "model.layers.1.self_attn.k_proj.weight"
    with torch.no_grad():
        dense.module.get_parameter(layer)[0, 0] = torch.nan
    with pytest.raises(NonFinite, match=layer):
        train(dense, "stable_rank", **SHORT)
    with pytest.raises(NonFinite, match="diverged at step 0"):
        train(dense, "plain", **SHORT)


def test_only_the_reference_model_can_be_trained_from_scratch(llama: DenseModel) -> None:
    with pytest.raises(Unsupported, match="is not the reference model"):
        train(llama, "plain", start="scratch", steps=1)


def test_the_control_from_scratch_is_the_reference_model_itself(reference: DenseModel) -> None:
    before = torch.get_num_threads(), torch.get_rng_state()
    model = train(reference, "plain", start="scratch")
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    for key, value in values(reference.module).items():
        assert torch.allclose(model.get_parameter(key), value, atol=1e-3)
    embedding: Any = model
    assert embedding.get_input_embeddings().weight is embedding.get_output_embeddings().weight


def begun(dense: DenseModel, name: str, seed: int) -> Tensor:
    """Return a weight after one step from scratch."""
    model = train(dense, name, start="scratch", steps=1, seed=seed)
    return model.get_parameter("model.layers.1.mlp.up_proj.weight")


@pytest.mark.parametrize("name", PENALTIES)
def test_from_scratch_all_methods_start_alike_for_a_seed(name: str, reference: DenseModel) -> None:
    free = begun(reference, "plain", seed=0)
    step = (begun(reference, name, seed=0) - free).std()
    assert 0 < step < 0.2 * (begun(reference, "plain", seed=1) - free).std()


def test_a_penalty_counts_from_scratch_too(reference: DenseModel) -> None:
    free, penalised = (train(reference, name, start="scratch") for name in ("plain", "stable_rank"))
    measure = STABLE_RANK
    assert mean(measure, penalised) < 0.9 * mean(measure, free)


def test_a_rate_from_scratch_keeps_the_proportion_of_the_recipe(reference: DenseModel) -> None:
    slow = train(reference, "plain", start="scratch", steps=2, learning_rate=1e-6)
    slower = train(reference, "plain", start="scratch", steps=2, learning_rate=1e-7)
    usual = train(reference, "plain", start="scratch", steps=2)
    for key in ("model.layers.0.mlp.up_proj.weight", "model.norm.weight"):
        moved = (slow.get_parameter(key) - slower.get_parameter(key)).abs().max()
        assert moved < 0.01 * (usual.get_parameter(key) - slower.get_parameter(key)).abs().max()
