"""What becomes of a stage that goes wrong: a cause, never an exception, never a number."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from hpo.compress.applying import heal_seed
from hpo.compress.pausing import SHORT_STEPS
from hpo.compress.planner import plan_of
from hpo.errors import HpoError, NonFinite, Unsupported
from hpo.healing_curve import HealingCurve
from hpo.measure.meter import StageMeter
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.run.workbench import Workbench
from hpo.space import Candidate, Value
from hpo.trial import Cause, Note
from tests.measure.test_meter import Wrapping
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


def test_every_stage_is_told_with_the_energy_counted_over_it(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Wrapping()

    @contextmanager
    def opened(device: str) -> Iterator[Wrapping]:
        assert device == "cpu"
        yield counter

    monkeypatch.setattr(bench, "_meter", StageMeter("cpu", open_counter=opened))
    result = bench.run(JOB, FIRST_STAGE)
    assert (result.failure, result.joules) == (None, 30.0)
    assert StageResult.from_mapping(result.to_mapping()) == result
    refused = bench.run(Job(2, 1, JOB.candidate, ""), "measure")
    assert refused.failure is not None
    assert refused.joules == 30.0


@pytest.mark.parametrize(("workers", "counted"), [(1, 30.0), (2, None)])
def test_of_several_workers_on_a_processor_none_is_charged_with_the_energy_of_all(
    short_reference: Path, monkeypatch: pytest.MonkeyPatch, workers: int, counted: float | None
) -> None:
    monkeypatch.setattr("hpo.measure.counters.rapl_counter", lambda root: Wrapping())
    bench = Workbench(study(run={"runner": "in_process", "workers": workers}).to_mapping())
    assert bench.run(JOB, "measure").joules == counted


def test_a_stage_of_a_trial_that_is_not_here_is_refused(bench: Workbench) -> None:
    failure = bench.run(JOB, "measure").failure
    assert failure is not None
    assert "is not on this worker" in failure.message


def test_the_same_plan_heals_from_the_same_seed(bench: Workbench) -> None:
    one, two = (plan_of(bench.profile, JOB.candidate) for _ in range(2))
    other = plan_of(bench.profile, Candidate.of({"factorise": "mpo", "factorise.bond_dimension": 9}))
    assert heal_seed(one) == heal_seed(two) != heal_seed(other)


def test_what_differs_after_the_healing_alone_is_healed_once(
    short_reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {
        "factorise": {"type": "choice", "choices": ["whitened_svd"]},
        "factorise.keep_ratio": {"type": "choice", "choices": [0.5]},
        "heal": {"type": "choice", "choices": ["fine_tune"]},
        "heal.steps": {"type": "choice", "choices": [2]},
        "quantize": {"type": "choice", "choices": ["none", "rtn"]},
    }
    made = Workbench(study(space=space).to_mapping())
    made.setup()
    whole: dict[str, Value] = {
        "factorise": "whitened_svd",
        "factorise.keep_ratio": 0.5,
        "heal": "fine_tune",
        "heal.steps": 2,
    }
    rounded: dict[str, Value] = {"quantize": "rtn", "quantize.group_size": 0}
    found = []
    monkeypatch.setattr("hpo.compress.shared_healing.cache_dir", lambda: tmp_path)
    for number, values in enumerate((whole, {**whole, **rounded})):
        job = Job(number, 1, Candidate.of(values), "")
        assert made.run(job, FIRST_STAGE).failure is None
        result = made.run(job, "heal")
        assert result.failure is None
        found.append(result.notes)
        assert result.curve is not None, "the second shows the curve of the healing that it shares"
        assert [step for step, _ in result.curve.trained] == [1, 2]
    assert "heal_shared_run" not in found[0]
    assert found[1]["heal_shared_run"] == plan_of(made.profile, Candidate.of(whole)).hash
    assert found[1]["heal_nll_after"] == found[0]["heal_nll_after"]


def test_a_long_healing_pauses_to_be_looked_at_and_goes_on(short_reference: Path) -> None:
    bench = Workbench(study(run={"runner": "in_process"}).to_mapping())
    bench.setup()
    heal: dict[str, Value] = {"heal": "fine_tune", "heal.steps": SHORT_STEPS + 3, "heal.learning_rate": 1e-3}
    job = Job(1, 1, Candidate.of({**JOB.candidate.values, **heal}), "")
    seen: dict[str, Note] = {}
    curves: dict[str, HealingCurve] = {}
    stage, stages = FIRST_STAGE, []
    while stage:
        result = bench.run(job, stage)
        assert result.failure is None
        seen |= result.notes
        if result.curve is not None:
            curves[stage] = result.curve
        assert StageResult.from_mapping(result.to_mapping()) == result
        stages.append(stage)
        stage = result.following
    assert stages == ["compress", "screen", "heal", "heal_on", "measure", "time"]
    assert seen["heal_steps"] == SHORT_STEPS + 3
    assert float(seen["screen_kl"]) > 0
    assert 0 < float(seen["heal_nll_short"]) < float(seen["heal_nll_before"])
    assert list(curves) == ["heal", "heal_on"]
    assert [curve.steps for curve in curves.values()] == [SHORT_STEPS, SHORT_STEPS + 3]
    assert [step for step, _ in curves["heal_on"].checked] == [0, SHORT_STEPS, SHORT_STEPS + 3]


def test_a_healing_that_is_given_up_leaves_the_bench_sound(bench: Workbench) -> None:
    heal: dict[str, Value] = {"heal": "fine_tune", "heal.steps": SHORT_STEPS + 3}
    job = Job(1, 1, Candidate.of({**JOB.candidate.values, **heal}), "")
    assert bench.run(JOB, FIRST_STAGE).failure is None
    sound = bench.run(JOB, "screen").notes
    assert bench.run(job, FIRST_STAGE).failure is None
    assert bench.run(job, "heal").following == "heal_on"
    bench.forget()
    assert bench.run(JOB, FIRST_STAGE).failure is None
    assert bench.run(JOB, "screen").notes == sound
    failure = bench.run(JOB, "heal_on").failure
    assert failure is not None
    assert "no healing to go on with" in failure.message


def test_the_dense_model_is_not_screened(bench: Workbench) -> None:
    assert bench.run(Job(0, 1, Candidate(), ""), FIRST_STAGE).following == "measure"
