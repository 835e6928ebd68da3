"""A model handed from bench to bench is the same to the bit, however it was made."""

from pathlib import Path

import pytest
import torch

from hpo.errors import HpoError
from hpo.run.job import FIRST_STAGE, Job
from hpo.run.workbench import Workbench
from hpo.space import Candidate, Value
from tests.run.test_launch import study

LOW_RANK: dict[str, Value] = {"factorise": "whitened_svd", "factorise.keep_ratio": 0.5}
HEALED: dict[str, Value] = {**LOW_RANK, "heal": "fine_tune", "heal.steps": 2, "heal.learning_rate": 1e-2}

CASES: dict[str, dict[str, Value]] = {
    "dense": {},
    "low rank": LOW_RANK,
    "tensor train": {"factorise": "mpo", "factorise.bond_dimension": 8},
    "healed": HEALED,
    "healed, then rounded": {**HEALED, "quantize": "rtn", "quantize.group_size": 0},
    "with adapters that stay": {**LOW_RANK, "heal": "lora", "heal.steps": 2, "heal.adapter": "kept"},
}


@pytest.fixture(scope="module")
def workbenches(short_reference: Path) -> tuple[Workbench, Workbench]:
    made = Workbench(study().to_mapping()), Workbench(study().to_mapping())
    for bench in made:
        bench.setup()
    return made


def logits(bench: Workbench, job: Job) -> torch.Tensor:
    ids = torch.arange(16).reshape(1, 16)
    with torch.no_grad():
        found: torch.Tensor = bench._subject(job).model(input_ids=ids).logits
    return found


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_a_model_taken_over_is_the_same_to_the_bit(
    workbenches: tuple[Workbench, Workbench], values: dict[str, Value]
) -> None:
    maker, taker = workbenches
    job = Job(1, 1, Candidate.of(values), "")
    stage = FIRST_STAGE
    while stage not in ("measure", "time", ""):
        result = maker.run(job, stage)
        assert result.failure is None, result.failure
        stage = result.following
    expected, dense = logits(maker, job), logits_of_dense(taker)
    carried = maker.carry(job)
    taker.take(job, carried)
    assert torch.equal(logits(taker, job), expected)
    assert torch.equal(logits_of_dense(taker), dense), "the taker's dense model is as it was"
    if not values:
        assert len(carried) < 1000, "nothing of the dense model travels"
    else:
        assert not torch.equal(expected, dense)
    maker.forget()
    taker.forget()


def logits_of_dense(bench: Workbench) -> torch.Tensor:
    ids = torch.arange(16).reshape(1, 16)
    with torch.no_grad():
        found: torch.Tensor = bench.dense.module(input_ids=ids).logits
    return found


def test_what_is_carried_of_another_plan_or_torn_is_refused(workbenches: tuple[Workbench, Workbench]) -> None:
    maker, taker = workbenches
    job = Job(1, 1, Candidate.of(LOW_RANK), "")
    assert maker.run(job, FIRST_STAGE).failure is None
    carried = maker.carry(job)
    with pytest.raises(HpoError, match="not those of plan"):
        taker.take(Job(2, 1, Candidate.of({**LOW_RANK, "factorise.keep_ratio": 0.3}), ""), carried)
    with pytest.raises(HpoError, match="no safetensors file"):
        taker.take(job, carried[: len(carried) // 2])
    with pytest.raises(HpoError, match="is not on this worker"):
        taker.carry(Job(9, 1, Candidate.of(LOW_RANK), ""))
