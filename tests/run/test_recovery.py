"""What a coordinator makes of what an earlier one has left, in a real store."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.problem import on_front
from hpo.run.in_process import InProcessRunner
from hpo.run.job import Failure, Job, StageResult
from hpo.run.runner import Runner
from hpo.store.spending import Work
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.study import Study
from hpo.trial import Cause, Measurement, Trial, TrialState
from tests.run import benches
from tests.run.conftest import coordinate, coordinator, in_process

TIMED = ["perplexity", "weight_memory", "prefill_latency"]


class Journalled(InProcessRunner):
    """A runner whose node holds these results in its journal."""

    def __init__(self, inner: InProcessRunner, held: Sequence[tuple[Job, StageResult]]) -> None:
        self.__dict__.update(inner.__dict__)
        self.held = list(held)

    def unheard(self) -> list[tuple[Job, StageResult]]:
        return list(self.held)

    def settle(self, jobs: Sequence[Job]) -> None:
        self.held = [entry for entry in self.held if entry[0] not in jobs]


def left_running(store: Store, study: Study) -> Trial:
    """Run a study until its coordinator dies within trial 3, and let the lease of that one run out."""
    runner = in_process(study)
    dying = coordinator(store, study, runner)
    ledger = dying._ledger

    def die(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.STAGE_DONE and trial.number == 3:
            raise KeyboardInterrupt

    ledger._listener = die
    with pytest.raises(KeyboardInterrupt):
        dying.run()
    store.release(dying._lease, time.time())
    found = store.trial(study.name, 3)
    assert found.state is TrialState.RUNNING
    return found


def job_of(trial: Trial) -> Job:
    return Job(trial.number, trial.attempt, trial.candidate, trial.plan_hash)


def rest_of(trial: Trial) -> list[tuple[Job, StageResult]]:
    """Return what a worker goes on to find for a trial whose first stage is stored."""
    bench, job = benches.ToyBench({}), job_of(trial)
    return [(job, bench.run(job, stage)) for stage in benches.STAGES]


def test_a_result_that_nobody_heard_is_adopted_and_not_measured_twice(store: Store) -> None:
    study = benches.study(trials=6)
    lost = left_running(store, study)
    told: list[str] = []
    runner = Journalled(in_process(study), rest_of(lost))
    again = coordinator(store, study, runner, say=told.append)
    assert again.run().state is StudyState.FINISHED
    found = store.trial("toy", 3)
    assert (found.state, found.attempt) == (TrialState.COMPLETED, 1)
    assert [stage.stage for stage in found.stages] == list(benches.STAGES)
    assert told == ["trials 3: adopted from the journals of workers"]
    assert runner.held == [], "the journal is cleared"
    done = [e for e in store.trial_events("toy", 3) if e.kind is EventKind.COMPLETED]
    assert [event.payload for event in done] == [{"adopted": True}]


def test_half_a_journal_counts_its_work_and_the_trial_runs_again(store: Store) -> None:
    study = benches.study(trials=6)
    lost = left_running(store, study)
    runner = Journalled(in_process(study), rest_of(lost)[:2])
    coordinator(store, study, runner).run()
    found = store.trial("toy", 3)
    assert (found.state, found.attempt) == (TrialState.COMPLETED, 2)
    lost_work = store.lost_work("toy")
    assert lost_work == Work(seconds=lost_work.seconds, stages=2, uncounted=2)
    assert lost_work.seconds == pytest.approx(0.02)


def test_a_journalled_failure_is_adopted_and_a_preemption_is_tried_again(store: Store) -> None:
    study = benches.study(trials=6)
    lost = left_running(store, study)
    job, result = rest_of(lost)[1]
    gone = replace(result, failure=Failure(Cause.PREEMPTED, "told to go"))
    coordinator(store, study, Journalled(in_process(study), [(job, gone)])).run()
    assert store.trial("toy", 3).state is TrialState.COMPLETED
    other = benches.study(trials=6, name="other")
    lost = left_running(store, other)
    failed = replace(result, failure=Failure(Cause.OUT_OF_MEMORY, "no room"))
    coordinator(store, other, Journalled(in_process(other), [(job_of(lost), failed)])).run()
    found = store.trial("other", 3)
    assert (found.state, found.cause, found.attempt) == (TrialState.FAILED, Cause.OUT_OF_MEMORY, 1)


def test_results_of_an_attempt_that_is_over_are_dropped(store: Store) -> None:
    study = benches.study(trials=6)
    lost = left_running(store, study)
    late = [(replace(job, attempt=0), result) for job, result in rest_of(lost)]
    told: list[str] = []
    runner = Journalled(in_process(study), late)
    coordinator(store, study, runner, say=told.append).run()
    assert told == [
        "trials 3: back in the queue, for nobody knows what came of them",
        "trials 3: dropped, late results of attempts that are over",
    ]
    assert store.trial("toy", 3).attempt == 2
    assert runner.held == []


# Other terms


def timed(study: Study, **faults: Any) -> Runner:
    return in_process(study, _latency=True, **faults)


def test_on_another_device_the_front_is_measured_again_and_both_fronts_remain(store: Store) -> None:
    study = benches.study(trials=10, objectives=TIMED)
    coordinate(store, study, timed(study, _device="old"))
    before, trials_before = store.front("toy"), {t.number: t for t in store.trials("toy")}
    assert before is not None
    log_before = len(store.events("toy"))
    told: list[str] = []
    coordinator(store, study, timed(study, _device="new"), say=told.append).run()
    trials, front = store.trials("toy"), store.front("toy")
    assert front is not None
    assert any("measured again" in line for line in told)
    assert any("kept apart" in line for line in told) == any(
        e.kind is EventKind.REVISED for e in store.events("toy", log_before)
    )
    for trial in trials:
        latency = trial.measurement("prefill_latency")
        assert latency is None or latency.device == "new", "figures of two devices never meet"
        again = trial.number in before.members or trial.origin.startswith("anchor")
        if again:
            assert latency is not None
            assert trial.value("perplexity") == trials_before[trial.number].value("perplexity")
    assert set(front.members) == {
        t.number for t, on in zip(trials, on_front(study.objectives, trials), strict=True) if on
    }
    assert store.fronts("toy")[before.revision].members == before.members or before in store.fronts("toy")
    assert len(trials) == 10, "measuring again is no new trial"


def test_what_is_measured_again_is_not_measured_in_what_it_has(store: Store) -> None:
    study = benches.study(trials=6, objectives=TIMED)
    coordinate(store, study, timed(study, _device="old"))
    coordinator(store, study, timed(study, _device="new")).run()
    dense = store.trial("toy", 0)
    assert dense.attempt == 2
    assert [m.metric for m in dense.measurements] == ["perplexity", "weight_memory", "prefill_latency"]
    assert dense.kept == 2


def test_the_work_of_a_study_counts_what_was_measured_before_and_again(store: Store) -> None:
    study = benches.study(trials=4, objectives=TIMED)
    coordinate(store, study, timed(study, _device="old"))
    coordinator(store, study, timed(study, _device="new")).run()
    trials = store.trials("toy")
    stages = sum(len(t.stages) for t in trials) + store.lost_work("toy").stages
    attempts = sum(t.attempt if t.stages else t.attempt - 1 for t in trials)
    assert stages == len(benches.STAGES) * attempts


def test_resuming_on_the_same_device_measures_nothing_again(store: Store) -> None:
    study = benches.study(trials=5, objectives=TIMED)
    coordinate(store, study, timed(study, _device="old"))
    before = store.trials("toy")
    coordinator(store, study, timed(study, _device="old")).run()
    assert store.trials("toy") == before


def test_killed_while_measuring_again_the_next_coordinator_goes_on_with_it(
    store: Store, tmp_path: Path
) -> None:
    study = benches.study(trials=6, objectives=TIMED)
    coordinate(store, study, timed(study, _device="old"))
    dying = coordinator(store, study, timed(study, _device="new"))

    def die(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.STAGE_DONE:
            raise KeyboardInterrupt

    dying._ledger._listener = die
    with pytest.raises(KeyboardInterrupt):
        dying.run()
    store.release(dying._lease, time.time())
    coordinator(store, study, timed(study, _device="new")).run()
    again = [t for t in store.trials("toy") if t.attempt > 1]
    assert all(t.state is TrialState.COMPLETED for t in again)
    assert {t.measurement("prefill_latency").device for t in again if t.value("prefill_latency")} == {"new"}  # type: ignore[union-attr]  # has a value
    killed = [t for t in again if t.attempt == 3]
    assert len(killed) == 1
    assert (
        Measurement.exact("weight_memory", killed[0].value("weight_memory") or 0.0) in killed[0].measurements
    )
