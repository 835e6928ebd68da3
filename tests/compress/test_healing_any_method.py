"""Every healer on what every factoriser makes: either it is refused when planned, or it works."""

from typing import Any

import pytest

from hpo.compress.recipe import methods
from hpo.compress.surgery import count_macs
from hpo.errors import Unsupported
from hpo.measure.memory import Held
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress import small
from tests.compress.healing import heal, held_out_loss, patient, taught
from tests.compress.test_methods import KNOBS

HEALERS: list[dict[str, Value]] = [
    {"heal": "fine_tune", "loss": "hidden"},
    {"heal": "distil", "loss": "local"},
    {"heal": "lora", "rank": 2},
    {"heal": "lora", "rank": 2, "adapter": "kept"},
    {"heal": "loretta", "rank": 2, "tt_rank": 2, "sites": 2},
    {"heal": "nested", "top_keep_ratio": 0.9},
]
PLAIN = ("fine_tune", "distil")
"""Healers that refuse no kind of layer."""


@pytest.fixture
def dense() -> DenseModel:
    return taught()


@pytest.mark.parametrize("healing", HEALERS, ids=lambda healing: ":".join(map(str, healing.values())))
@pytest.mark.parametrize("method", methods("factorise"))
def test_a_healer_works_on_what_a_factoriser_makes_or_says_why_not(
    method: str, healing: dict[str, Value], dense: DenseModel
) -> None:
    knobs: dict[str, Any] = KNOBS[method][0]
    factorised = {"factorise": method, **{f"factorise.{name}": value for name, value in knobs.items()}}
    try:
        found = patient(dense, {**healing, "steps": 2, "learning_rate": 3e-3}, factorised)
    except Unsupported:
        assert healing["heal"] not in PLAIN
        return
    before = held_out_loss(found)
    healed = heal(found)
    assert healed.steps in (0, 2)
    assert held_out_loss(found) <= before * (1 + 1e-4)
    assert count_macs(found.model, small.CONTEXT) == found.plan.prefill_macs
    held, whole = Held.by(found.model), Held.by(dense.module)
    assert held.parameters == found.plan.parameters
    assert held.parameter_bytes + held.buffer_bytes - whole.buffer_bytes == found.plan.weight_bytes
