"""What becomes of a stage that goes wrong: a cause, never an exception, never a number."""

from pathlib import Path

import pytest
import torch

from hpo.compress.applying import heal_seed
from hpo.compress.planner import plan_of
from hpo.errors import HpoError, NonFinite, Unsupported
from hpo.run.job import FIRST_STAGE, Job
from hpo.run.workbench import Workbench
from hpo.space import Candidate
from hpo.trial import Cause
from tests.run.test_launch import study

JOB = Job(1, 1, Candidate.of({"factorise": "mpo", "factorise.bond_dimension": 8}), "")


@pytest.fixture
def bench(short_reference: Path) -> Workbench:
    made = Workbench(study().to_mapping())
    made.setup()
    return made


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), Cause.OUT_OF_MEMORY),
        (MemoryError(), Cause.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), Cause.OUT_OF_MEMORY),
        (NonFinite("the logits hold NaN"), Cause.NOT_A_NUMBER),
        (Unsupported("a layer no method knows"), Cause.UNSUPPORTED),
        (HpoError("something else"), Cause.ERROR),
        (ZeroDivisionError("a fault"), Cause.ERROR),
    ],
)
def test_what_goes_wrong_is_told_by_its_cause(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: Cause
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("hpo.run.workbench.compressed", fail)
    result = bench.run(JOB, FIRST_STAGE)
    assert result.failure is not None
    assert result.failure.cause is cause
    assert str(error).splitlines()[0] in result.failure.message if str(error) else result.failure.message
    assert result.measurements == ()
    assert result.following == ""


def test_weights_that_turn_to_nan_fail_the_trial_and_the_next_one_is_sound(bench: Workbench) -> None:
    assert bench.run(JOB, FIRST_STAGE).failure is None
    model, _ = bench._current(JOB)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.cores.0").fill_(float("nan"))
    failure = bench.run(JOB, "measure").failure
    assert failure is not None
    assert failure.cause is Cause.NOT_A_NUMBER
    assert bench.run(JOB, FIRST_STAGE).failure is None
    assert bench.run(JOB, "measure").failure is None


def test_a_stage_of_a_trial_that_is_not_here_is_refused(bench: Workbench) -> None:
    failure = bench.run(JOB, "measure").failure
    assert failure is not None
    assert "is not on this worker" in failure.message


def test_the_same_plan_heals_from_the_same_seed(bench: Workbench) -> None:
    one, two = (plan_of(bench.profile, JOB.candidate) for _ in range(2))
    other = plan_of(bench.profile, Candidate.of({"factorise": "mpo", "factorise.bond_dimension": 9}))
    assert heal_seed(one) == heal_seed(two) != heal_seed(other)
