"""Healing the factors themselves; what holds for all healers stands in `test_healers`."""

import math

import pytest
import torch

from hpo.compress.method import Patient
from hpo.compress.plan import HealPlan
from hpo.compress.surgery import rebuilding, shared_copy
from hpo.compress.treatment import balance, factor_parameters
from hpo.errors import NonFinite, Unsupported
from hpo.measure.likelihood import score
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress import small
from tests.compress.healing import FACTORISED, counting, heal, held_out_loss, patient, taught


@pytest.fixture
def dense() -> DenseModel:
    return taught()


@pytest.mark.parametrize("kind", ["low_rank", "mpo"])
def test_balancing_does_not_change_the_model(kind: str, dense: DenseModel) -> None:
    model = patient(dense, {}, FACTORISED[kind]).model
    before, factors = small.logits(model), [f.clone() for f in factor_parameters(model)]
    balance(model)
    assert torch.allclose(small.logits(model), before, atol=1e-4)
    now = factor_parameters(model)
    assert not any(torch.allclose(a, b) for a, b in zip(factors, now, strict=True))
    spread = [float(f.norm()) for f in now[:2]]
    assert max(spread) == pytest.approx(min(spread), rel=1e-4)


@pytest.mark.parametrize("loss", ["distil", "hidden", "local"])
def test_distillation_brings_the_model_nearer_to_the_dense_one(loss: str, dense: DenseModel) -> None:
    def divergence() -> float:
        kl = score(found.model, counting(8).sequences, dense.module).kl
        assert kl is not None
        return float(kl.sum())

    found = patient(dense, {"heal": "distil", "loss": loss, "steps": 30, "learning_rate": 3e-3})
    before = divergence()
    heal(found)
    assert divergence() < 0.8 * before


def test_a_cached_matrix_is_never_stale_after_healing(dense: DenseModel) -> None:
    cached: dict[str, Value] = {**FACTORISED["mpo"], "factorise.contraction": "cached"}
    found = patient(dense, {"heal": "fine_tune", "steps": 8, "learning_rate": 3e-3}, cached)
    before = small.logits(found.model)  # builds the matrices
    assert heal(found).kept_after
    after = small.logits(found.model)
    assert not torch.allclose(before, after)
    with rebuilding(found.model):
        assert torch.allclose(small.logits(found.model), after, atol=1e-5)


def test_no_step_may_be_taken_on_a_broken_model(dense: DenseModel) -> None:
    found = patient(dense, {"heal": "fine_tune"})
    with torch.no_grad():
        factor_parameters(found.model)[0].fill_(math.nan)
    with pytest.raises(NonFinite, match="factor"):
        heal(found)


def test_a_model_without_factors_is_left_alone(dense: DenseModel) -> None:
    found = patient(dense, {"heal": "fine_tune"})
    whole = Patient(shared_copy(dense.module).eval(), found.plan, found.materials)
    outcome = heal(whole)
    assert (outcome.steps, outcome.kept_after) == (0, False)
    assert torch.equal(small.logits(whole.model), small.logits(dense.module))


def test_impatience_saves_steps_and_keeps_the_best(dense: DenseModel) -> None:
    # far too bold: the best check is an early one, and later ones are worse
    bold: dict[str, Value] = {"schedule": "constant", "learning_rate": 0.1, "steps": 60}
    watched: dict[str, Value] = {"heal": "fine_tune", "patience": 2, "check_every": 2}
    found = patient(dense, {**bold, **watched}, FACTORISED["mild"])
    healed = heal(found)
    assert healed.steps < 60
    assert held_out_loss(found) <= healed.before * (1 + 1e-4)


def test_a_knob_at_its_default_does_not_change_the_plan(dense: DenseModel) -> None:
    def key(**knobs: Value) -> str:
        plan = patient(dense, {"heal": "fine_tune", **knobs}).plan.heal
        assert isinstance(plan, HealPlan)
        return plan.key

    assert key() == key(patience=0, loss="cross_entropy", batch=4) == "fine_tune"
    assert key(batch=8) == "fine_tune:batch=8"


def test_an_embedding_alone_is_healed_but_not_block_by_block(dense: DenseModel) -> None:
    embedding: dict[str, Value] = {"embed": "tt_embedding", "embed.bond_dimension": 4}
    found = patient(dense, {"heal": "fine_tune", "steps": 8, "learning_rate": 3e-3}, embedding)
    assert heal(found).kept_after
    with pytest.raises(Unsupported, match="no layer of a block is compressed"):
        patient(dense, {"heal": "distil", "loss": "local"}, embedding)
