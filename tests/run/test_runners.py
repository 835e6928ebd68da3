"""The contract of every registered runner, and what Ray alone can do: lose workers."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo import registry
from hpo.errors import HpoError
from hpo.run.bench import BenchSpec
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.run.runner import Report, Runner
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.trial import Cause, Measurement, TrialState
from tests.run import benches
from tests.run.conftest import coordinate

pytestmark = [
    pytest.mark.ray,
    # Ray leaves its log files and sockets open until the process ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # Ray warns that a later version will not set CUDA_VISIBLE_DEVICES for actors without a GPU.
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]

Make = Callable[..., Runner]


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One local Ray for all tests of this file: starting it takes ten times as long as any of them."""
    import ray

    from hpo.run.ray_cluster import connect

    connect(None, workers=2, threads=1)
    yield
    ray.shutdown()


@pytest.fixture(params=registry.names("runner"))
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    made: list[Runner] = []

    def build(document: dict[str, Any] | None = None, **run: Any) -> Runner:
        study = benches.study(run={"runner": request.param, **run})
        runner: Runner = registry.load("runner", request.param)(
            BenchSpec(benches.TOY, document or {}), study.run, None
        )
        made.append(runner)
        return runner

    yield build
    for runner in made:
        runner.close()


def job(number: int = 0, attempt: int = 1) -> Job:
    return Job(number, attempt, Candidate.of({"x": 0.5}), "plan")


def until(runner: Runner, count: int = 1, seconds: float = 60.0) -> list[Report]:
    end = time.monotonic() + seconds
    reports: list[Report] = []
    while len(reports) < count and time.monotonic() < end:
        reports += runner.wait(0.2)
    assert len(reports) == count, f"{len(reports)} reports after {seconds} s"
    return reports


def result(report: Report) -> StageResult:
    assert report.result is not None, report.lost
    return report.result


def test_setup_comes_from_the_worker(make: Make) -> None:
    runner = make()
    setup = runner.start()
    assert (setup.device, dict(setup.environment)) == ("toy", {"bench": "toy"})
    assert runner.free() == 1


def test_a_job_is_pulled_stage_by_stage(make: Make) -> None:
    runner = make()
    runner.start()
    this, stage, seen = job(), FIRST_STAGE, []
    while stage:
        assert runner.submit(this, stage)
        found = result(until(runner)[0])
        seen.append((found.stage, [m.metric for m in found.measurements]))
        assert runner.free() == 0
        stage = found.following
    assert seen == [("compress", []), ("measure", ["perplexity"]), ("time", ["weight_memory"])]
    runner.release(this)
    assert runner.free() == 1


def test_a_job_that_is_released_early_is_not_heard_of_again(make: Make) -> None:
    runner = make()
    runner.start()
    runner.submit(job(), FIRST_STAGE)
    until(runner)
    runner.release(job())
    assert runner.wait(0.2) == []
    runner.submit(job(1), FIRST_STAGE)
    assert until(runner)[0].job == job(1)


def test_a_failing_stage_is_a_result(make: Make) -> None:
    runner = make({"faults": {"0": "nan"}})
    runner.start()
    runner.submit(job(), "measure")
    failure = result(until(runner)[0]).failure
    assert failure is not None
    assert failure.cause is Cause.NOT_A_NUMBER


def test_nothing_is_accepted_while_no_worker_is_free(make: Make) -> None:
    runner = make()
    runner.start()
    runner.submit(job(), FIRST_STAGE)
    with pytest.raises(HpoError, match=r"worker"):
        runner.submit(job(1), FIRST_STAGE)
    until(runner)


def test_jobs_and_results_survive_json() -> None:
    import json

    one = job(3, 2)
    assert Job.from_mapping(json.loads(json.dumps(one.to_mapping()))) == one
    measured = StageResult(
        "measure", 0.25, "time", (Measurement.exact("parameters", 7),), {"heal_steps": 3.0}
    )
    assert StageResult.from_mapping(json.loads(json.dumps(measured.to_mapping()))) == measured


def ray_study(trials: int, **run: Any) -> Any:
    return benches.study(trials, run={"runner": "ray", **run})


def ray_runner(study: Any, document: dict[str, Any]) -> Runner:
    runner: Runner = registry.load("runner", "ray")(BenchSpec(benches.TOY, document), study.run, None)
    return runner


def test_workers_share_the_trials_of_a_study(local_ray: None, store: Store) -> None:
    study = ray_study(16, workers=2)
    runner = ray_runner(study, {"faults": {"slow": 0.05}})
    outcome = coordinate(store, study, runner)
    runner.close()
    trials = store.trials("toy")
    assert outcome.state is StudyState.FINISHED
    assert [t.state for t in trials] == [TrialState.COMPLETED] * 16
    assert {t.worker for t in trials} == {"worker-0", "worker-1"}


def test_a_lost_worker_is_replaced_and_its_trial_tried_again(local_ray: None, store: Store) -> None:
    study = ray_study(8)
    runner = ray_runner(study, {"faults": {"4": "die"}})
    outcome = coordinate(store, study, runner)
    runner.close()
    trials = store.trials("toy")
    assert outcome.state is StudyState.FINISHED
    assert [t.state for t in trials] == [TrialState.COMPLETED] * 8
    assert [t.attempt for t in trials] == [1, 1, 1, 1, 2, 1, 1, 1]
    assert [e.trial for e in store.events("toy") if e.kind is EventKind.LOST] == [4]


def test_a_trial_that_kills_every_worker_fails_as_lost_and_the_rest_goes_on(
    local_ray: None, store: Store
) -> None:
    study = ray_study(7, attempts=2)
    runner = ray_runner(study, {"faults": {"3": "die-always"}})
    outcome = coordinate(store, study, runner)
    runner.close()
    trial = store.trial("toy", 3)
    assert (trial.state, trial.cause, trial.attempt) == (TrialState.FAILED, Cause.LOST_WORKER, 2)
    assert "tried 2 times" in trial.message
    assert outcome.state is StudyState.FINISHED
    assert sum(t.state is TrialState.COMPLETED for t in store.trials("toy")) == 6


def test_a_stage_that_hangs_is_ended_and_tried_again(local_ray: None, store: Store) -> None:
    study = ray_study(5, stage_timeout_s=2.0)
    runner = ray_runner(study, {"faults": {"3": "hang"}})
    outcome = coordinate(store, study, runner)
    runner.close()
    assert outcome.state is StudyState.FINISHED
    assert store.trial("toy", 3).attempt == 2
    (lost,) = [e for e in store.events("toy") if e.kind is EventKind.LOST]
    assert "over 2 s" in lost.payload["why"]


def test_a_worker_killed_from_outside_loses_nothing(local_ray: None, store: Store, tmp_path: Path) -> None:
    import ray

    study = ray_study(12, workers=2)
    runner: Any = ray_runner(study, {"faults": {"slow": 0.05}})
    killed: list[int] = []

    def kill(kind: EventKind, trial: Any) -> None:
        if kind is EventKind.STAGE_DONE and trial.number in (4, 7) and trial.number not in killed:
            killed.append(trial.number)
            slot = next(s for s in runner._slots if s.name == trial.worker)
            os.kill(ray.get(slot.actor.pulse.remote()).pid, signal.SIGKILL)

    outcome = coordinate(store, study, runner, kill)
    runner.close()
    trials = store.trials("toy")
    assert outcome.state is StudyState.FINISHED
    assert killed == [4, 7] or set(killed) == {4, 7}
    assert [t.state for t in trials] == [TrialState.COMPLETED] * 12


def test_a_bench_that_cannot_be_set_up_says_why(local_ray: None) -> None:
    runner = ray_runner(ray_study(3), {"faults": {"setup": True}})
    with pytest.raises(HpoError, match="no such model"):
        runner.start()
    runner.close()


def test_cuda_is_refused_where_the_cluster_has_none(local_ray: None) -> None:
    with pytest.raises(HpoError, match="no GPU"):
        ray_runner(ray_study(3, device="cuda"), {})


def test_a_local_ray_wants_a_token(local_ray: None) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
