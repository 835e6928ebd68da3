"""The contract of the stages prune, sparsify and quantize, alone and composed, on small random models."""

from typing import Any

import pytest
import torch

from hpo.compress.applying import compressed, healed
from hpo.compress.planner import features_of, plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.recipe import methods
from hpo.compress.surgery import count_macs
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Candidate
from tests.compress import small
from tests.compress.changes import CASES, STAGES, alone


@pytest.fixture(scope="module")
def base(llama: DenseModel) -> Profiler:
    return Profiler(llama, small.corpus(), small.CONTEXT)


def named(values: dict[str, Any]) -> str:
    return " ".join(f"{key.split('.')[-1]}={value}" for key, value in values.items())


@pytest.mark.parametrize("stage", STAGES)
def test_every_registered_method_is_under_contract(stage: str) -> None:
    assert set(STAGES[stage]) == set(methods(stage))


@pytest.mark.parametrize("values", CASES, ids=named)
def test_the_plan_counts_what_the_model_holds_and_computes(
    values: dict[str, Any], base: Profiler, llama: DenseModel
) -> None:
    asked = Candidate.of(values)
    profile = base.profile(preparations_of(asked))
    plan = plan_of(profile, asked)
    assert plan.hash == plan_of(profile, asked).hash != "dense"
    before = small.logits(llama.module)
    model = compressed(base, asked, plan)
    found = small.logits(model)
    assert torch.isfinite(found).all()
    assert not torch.equal(found, before)
    assert torch.equal(small.logits(llama.module), before)
    held, dense = Held.by(model), Held.by(llama.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - dense.buffer_bytes == plan.weight_bytes
    assert count_macs(model, small.CONTEXT) == plan.prefill_macs


@pytest.mark.parametrize("values", CASES, ids=named)
def test_features_are_shares(values: dict[str, Any], base: Profiler) -> None:
    asked = Candidate.of(values)
    profile = base.profile(preparations_of(asked))
    features = features_of(profile, plan_of(profile, asked))
    assert len(features) == len(features_of(profile, plan_of(profile, Candidate())))
    assert ((features >= 0) & (features <= 4)).all()


@pytest.mark.parametrize("values", CASES, ids=named)
def test_a_healed_model_holds_what_its_plan_says(values: dict[str, Any], base: Profiler) -> None:
    """Healing comes before rounding unless the order says otherwise, so there is something to train."""
    asked = Candidate.of({**values, "heal": "fine_tune", "heal.steps": 2, "heal.learning_rate": 1e-3})
    profile = base.profile(preparations_of(asked))
    plan = plan_of(profile, asked)
    if set(values) & {"prune", "factorise", "sparsify", "embed"}:
        assert plan.heal is not None
    model = compressed(base, asked, plan)
    healed(base, asked, plan, model)
    held, dense = Held.by(model), Held.by(base.dense.module)
    assert held.parameters == plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - dense.buffer_bytes == plan.weight_bytes


def test_rounding_after_healing_rounds_what_was_healed(base: Profiler) -> None:
    first: dict[str, Any] = {"factorise": "svd", "factorise.keep_ratio": 0.5}
    first |= {"heal": "fine_tune", "heal.steps": 4}
    both = Candidate.of({**first, "quantize": "rtn", "quantize.bits": 8, "quantize.group_size": 0})
    profile = base.profile(preparations_of(both))
    found = []
    for asked in (Candidate.of(first), both):
        plan = plan_of(profile, asked)
        model = compressed(base, asked, plan)
        healed(base, asked, plan, model, seed=1)
        found.append(small.logits(model))
    assert plan.changes[-1].is_healed
    assert torch.linalg.norm(found[1] - found[0]) < 0.05 * torch.linalg.norm(found[0])
    assert not torch.equal(found[0], found[1])


def test_an_order_decides_what_heals(base: Profiler) -> None:
    values: dict[str, Any] = {
        "factorise": "svd",
        "factorise.keep_ratio": 0.5,
        "quantize": "rtn",
        "quantize.group_size": 0,
        "heal": "lora",
        "heal.adapter": "kept",
        "heal.steps": 2,
        "heal.rank": 2,
    }
    order = "factorise > quantize > heal"
    asked = Candidate.of({**values, "order": order})
    profile = base.profile(preparations_of(asked))
    plan = plan_of(profile, asked)
    assert plan.heal is not None
    assert [change.is_healed for change in plan.changes] == [False, False]
    with pytest.raises(Unsupported, match=r"adapters stay[\s\S]*merge them"):
        plan_of(profile, Candidate.of(values))


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("quantize > factorise", r"quantize before factorise[\s\S]*few bits cannot be factorised"),
        ("heal > train > quantize > factorise", r"heal before train"),
        ("factorise > quantise", r"unknown stage 'quantise'[\s\S]*quantize"),
        ("factorise > factorise", "names a stage twice"),
        ("quantize", "leaves out factorise"),
    ],
)
def test_orders_that_make_no_sense_are_refused_with_the_reason(order: str, said: str, base: Profiler) -> None:
    asked = Candidate.of(
        {
            "factorise": "svd",
            "factorise.keep_ratio": 0.5,
            "quantize": "rtn",
            "quantize.group_size": 0,
            "order": order,
        }
    )
    with pytest.raises(Unsupported, match=said):
        plan_of(base.profile(preparations_of(asked)), asked)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"group_size": 7}, r"groups of 7 do not divide a row of 32[\s\S]*last_group: short"),
        ({"bits": 5}, "quantize.bits"),
        ({"rank": 5}, "quantize.rank"),
        ({"correction": -1}, "quantize.correction"),
    ],
)
def test_what_cannot_be_quantised_so_is_refused_before_anything_runs(
    knobs: dict[str, Any], said: str, base: Profiler
) -> None:
    with pytest.raises(Unsupported, match=said):
        plan_of(base.profile([]), Candidate.of(alone("quantize", "rtn", knobs)))


def test_what_is_in_few_bits_already_is_not_quantised_again(base: Profiler) -> None:
    asked = Candidate.of(
        {"factorise": "eora", "factorise.rank": 2, "quantize": "rtn", "quantize.group_size": 0}
    )
    with pytest.raises(Unsupported, match="no layer has a matrix left to quantise"):
        plan_of(base.profile(preparations_of(asked)), asked)
