"""Healing of layers with zeros: the zeros stay."""

from typing import Any

import pytest
import torch

from hpo.compress.applying import compressed, healed
from hpo.compress.layers.sparse import SparseMatrix
from hpo.compress.mezo import mezo_step
from hpo.compress.profiling import Profiler
from hpo.compress.sparse_values import values_alone
from hpo.compress.treatment import factor_parameters
from hpo.deliver.export import merged
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress import healing, small
from tests.compress.thinning import FACTORS, NARROW, asked, made, planned, weights, zeros


@pytest.fixture(scope="module")
def base(llama: DenseModel) -> Profiler:
    return Profiler(llama, small.corpus(), small.CONTEXT)


def sick(before: dict[str, Value], **healer: Value) -> Any:
    return healing.patient(healing.taught(), healer, before)


HALVED: dict[str, Value] = {"sparsify": "magnitude", "sparsify.sparsity": 0.7}
SORTS = {
    "whole": HALVED,
    "bitmap": {**HALVED, "sparsify.store": "bitmap"},
    "factors": {**FACTORS, "sparsify": "wanda", "sparsify.sparsity": 0.3},
    "sparse factors": {**FACTORS, "sparsify": "wanda", "sparsify.sparsity": 0.3, "sparsify.store": "csr"},
    "narrow": {**NARROW, "sparsify": "wanda", "sparsify.sparsity": 0.3},
}


@pytest.mark.parametrize("sort", SORTS)
def test_healing_helps_and_leaves_every_zero_where_it_was(sort: str) -> None:
    patient = sick(SORTS[sort], heal="fine_tune", steps=5)
    before, loss = zeros(patient.model), healing.held_out_loss(patient)
    outcome = healing.heal(patient, learning_rate=3e-3)
    after = zeros(patient.model)
    assert before.keys() == after.keys()
    assert sum(int(mask.sum()) for mask in before.values()) > 0
    for name, mask in before.items():
        assert torch.equal(after[name], mask), name
    assert outcome.kept_after
    assert healing.held_out_loss(patient) < 0.95 * loss


@pytest.mark.parametrize("sort", ["whole", "factors"])
def test_no_optimiser_fills_zeros(sort: str) -> None:
    """MeZO moves everything that it trains, zero or not; so what it leaves behind is looked at either way."""
    patient = sick(SORTS[sort], heal="fine_tune", steps=2, optimiser="mezo")
    before = zeros(patient.model)
    with values_alone(patient.model):
        parameters = factor_parameters(patient.model)
        mezo_step(parameters, lambda: 1.0, seed=0, rate=0.1, perturbation=0.1)
        mezo_step(parameters, lambda: float(parameters[0].mean()), seed=0, rate=0.1, perturbation=0.1)
    for name, mask in zeros(patient.model).items():
        assert torch.equal(mask, before[name]), name


def test_the_values_alone_compute_the_same_and_the_modules_come_back(base: Profiler) -> None:
    model = made(base, asked(before=FACTORS, sparsity=0.5))
    modules, logits = dict(model.named_modules()), small.logits(model)
    with values_alone(model):
        torch.testing.assert_close(small.logits(model), logits)
        trained = [m for m in model.modules() if isinstance(m, SparseMatrix)]
        with torch.no_grad():
            for matrix in trained:
                matrix.values.mul_(2)
    assert len(trained) == 2 * len(base.architecture.layers)
    assert dict(model.named_modules()) == modules
    assert not torch.equal(small.logits(model), logits)


@pytest.mark.parametrize("sort", ["whole", "bitmap", "factors", "narrow"])
def test_adapters_that_stay_stand_beside_and_the_zeros_stay(sort: str) -> None:
    patient = sick(SORTS[sort], heal="lora", adapter="kept", rank=2, steps=4)
    before = zeros(patient.model)
    outcome = healing.heal(patient, learning_rate=1e-2)
    assert outcome.steps == 4
    after = zeros(patient.model)
    assert set(after) == {name.replace("_proj", "_proj.base") for name in before}
    held, dense = Held.by(patient.model), Held.by(healing.taught().module)
    assert held.parameters == patient.plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - dense.buffer_bytes == patient.plan.weight_bytes
    logits = small.logits(patient.model)
    whole = merged(patient.model, healing.taught().module)
    torch.testing.assert_close(small.logits(whole), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("store", ["dense", "bitmap"])
def test_adapters_that_would_fill_the_zeros_are_refused(store: str) -> None:
    with pytest.raises(Unsupported, match=r"cannot be merged into layers of the kind sparse[\s\S]*kept"):
        sick({**HALVED, "sparsify.store": store}, heal="lora", rank=2)
    with pytest.raises(Unsupported, match="kind sparse have no ranks to slice"):
        sick({**HALVED, "sparsify.store": store}, heal="nested")


def test_a_healing_may_be_kept_for_others_to_start_from(base: Profiler) -> None:
    candidate = asked("magnitude", {"heal": "fine_tune", "heal.steps": 2}, sparsity=0.33)
    plan = planned(base, candidate)
    for _ in range(2):
        model = compressed(base, candidate, plan)
        healed(base, candidate, plan, model, keep=True, parent_plan=plan.hash)
        assert all((weight == 0).any() for weight in weights(model, plan).values())
