import time

import numpy as np
import pytest

from hpo.errors import LeaseLost, StoreError
from hpo.pareto import nondominated
from hpo.run.lease import owner_name
from hpo.store.store import Store
from hpo.store.values import EventKind, Request, StudyState
from hpo.trial import Cause, Trial, TrialState
from tests.run import benches
from tests.run.conftest import coordinate, coordinator, in_process


def test_a_study_uses_its_budget_exactly_and_finishes(store: Store) -> None:
    study = benches.study(12)
    outcome = coordinate(store, study, in_process(study))
    trials = store.trials("toy")
    assert outcome.state is StudyState.FINISHED
    assert [t.number for t in trials] == list(range(12))
    assert all(t.state is TrialState.COMPLETED for t in trials)
    assert store.study("toy").state is StudyState.FINISHED
    assert store.holder("toy") is None or store.holder("toy").expires_at <= time.time()  # type: ignore[union-attr]  # checked before


def test_trial_zero_is_the_dense_model_then_come_smallest_and_largest(store: Store) -> None:
    study = benches.study(6)
    coordinate(store, study, in_process(study))
    trials = store.trials("toy")
    assert trials[0].is_dense
    # the toy space refuses the SVD anchor, which it cannot plan
    assert [t.origin for t in trials[:3]] == ["anchor:dense", "anchor:smallest", "anchor:largest"]
    assert benches.x_of(trials[1].candidate) == 0.0
    assert benches.x_of(trials[2].candidate) == 1.0
    assert {t.origin for t in trials[3:]} == {"sobol"}


def test_no_plan_is_tried_twice(store: Store) -> None:
    study = benches.study(20, space={"x": {"type": "float", "low": 0.0, "high": 1.0, "step": 0.1}})
    outcome = coordinate(store, study, in_process(study))
    plans = [t.plan_hash for t in store.trials("toy")]
    assert len(set(plans)) == len(plans) == 12  # eleven steps and the dense model
    assert outcome.state is StudyState.FINISHED
    assert "no more plans" in outcome.message


def test_the_stored_front_is_the_nondominated_set(store: Store) -> None:
    study = benches.study(15)
    coordinate(store, study, in_process(study))
    trials, front = store.trials("toy"), store.front("toy")
    assert front is not None
    losses = benches.problem(study).losses(trials)
    assert front.members == tuple(np.flatnonzero(nondominated(losses)).tolist())
    assert front.hypervolume is not None
    assert 0 < front.hypervolume < 1
    hypervolumes = [f.hypervolume or 0.0 for f in store.fronts("toy") if f.reference == front.reference]
    assert hypervolumes == sorted(hypervolumes)


def test_a_limit_keeps_trials_off_the_front(store: Store) -> None:
    objectives = [{"metric": "perplexity", "limit": 1.25}, "weight_memory"]
    study = benches.study(15, objectives=objectives)
    coordinate(store, study, in_process(study))
    front = store.front("toy")
    assert front is not None
    assert front.members
    assert all((store.trial("toy", n).value("perplexity") or 9) <= 1.25 for n in front.members)


@pytest.mark.parametrize(("fault", "cause"), [("nan", Cause.NOT_A_NUMBER), ("raise", Cause.ERROR)])
def test_a_failing_trial_is_kept_with_its_cause_and_the_study_goes_on(
    store: Store, fault: str, cause: Cause
) -> None:
    study = benches.study(10)
    outcome = coordinate(store, study, in_process(study, _4=fault))
    trial = store.trial("toy", 4)
    assert (trial.state, trial.cause) == (TrialState.FAILED, cause)
    assert f"told to {fault}" in trial.message
    assert trial.value("perplexity") is None
    assert outcome.state is StudyState.FINISHED
    assert sum(t.state is TrialState.COMPLETED for t in store.trials("toy")) == 9


def test_a_study_whose_first_five_trials_fail_stops_and_says_why(store: Store) -> None:
    study = benches.study(30)
    outcome = coordinate(store, study, in_process(study, **{"*": "raise"}))
    assert outcome.state is StudyState.FAILED
    assert "first 5 trials all failed" in outcome.message
    assert "told to raise" in outcome.message
    assert len(store.trials("toy")) == 5
    assert store.study("toy").message == outcome.message


def test_a_study_without_a_completed_trial_has_failed(store: Store) -> None:
    study = benches.study(3)
    assert coordinate(store, study, in_process(study, **{"*": "nan"})).state is StudyState.FAILED


def test_draining_lets_the_running_trial_finish_and_resume_goes_on(store: Store) -> None:
    study = benches.study(10)

    def ask_to_stop(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.STAGE_DONE and trial.number == 4 and len(trial.stages) == 1:
            current.interrupt()

    current = coordinator(store, study, in_process(study), ask_to_stop)
    outcome = current.run()
    assert (outcome.state, outcome.interrupted) == (StudyState.STOPPED, True)
    assert [t.state for t in store.trials("toy")] == [TrialState.COMPLETED] * 5
    assert coordinate(store, study, in_process(study)).state is StudyState.FINISHED
    assert len(store.trials("toy")) == 10


def test_cancelling_puts_the_running_trial_back_and_resume_runs_it_again(store: Store) -> None:
    study = benches.study(8)

    def cancel(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.STAGE_DONE and trial.number == 4:
            current.cancel()

    current = coordinator(store, study, in_process(study), cancel)
    assert current.run().state is StudyState.STOPPED
    waiting = store.trial("toy", 4)
    assert (waiting.state, waiting.attempt) == (TrialState.WAITING, 2)
    coordinate(store, study, in_process(study))
    trials = store.trials("toy")
    assert len(trials) == 8
    assert (trials[4].state, trials[4].attempt) == (TrialState.COMPLETED, 2)


@pytest.mark.parametrize("request_", [Request.DRAIN, Request.CANCEL])
def test_a_request_through_the_store_is_heard(store: Store, request_: Request) -> None:
    study = benches.study(100_000)

    def ask(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.COMPLETED and trial.number == 3:
            store.request("toy", request_, time.time())

    outcome = coordinate(store, study, in_process(study, slow=0.05), ask)
    assert outcome.state is StudyState.STOPPED
    assert not outcome.interrupted
    assert 4 <= len(store.trials("toy")) < 60


def test_a_killed_coordinators_trials_are_requeued_with_a_new_attempt(store: Store) -> None:
    study = benches.study(8)

    class KilledError(BaseException):
        """As kill -9 would: nothing after it runs."""

    def kill(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.STAGE_DONE and trial.number == 5:
            raise KilledError

    with pytest.raises(KilledError):
        coordinator(store, study, in_process(study), kill).run()
    assert store.trial("toy", 5).state is TrialState.RUNNING
    completed = {t.number: t for t in store.trials("toy") if t.state is TrialState.COMPLETED}
    holder = store.holder("toy")
    assert holder is not None
    lease = store.acquire("toy", owner_name(), 30, time.time(), replacing=holder.owner)
    store.release(lease, time.time())
    assert coordinate(store, study, in_process(study)).state is StudyState.FINISHED
    trials = store.trials("toy")
    assert len(trials) == 8
    assert trials[5].attempt == 2
    assert all(trials[n] == t for n, t in completed.items())
    kinds = [e.kind for e in store.events("toy") if e.trial == 5]
    assert kinds.count(EventKind.STARTED) == 2
    assert kinds.count(EventKind.REQUEUED) == 1


def test_a_second_coordinator_is_refused_with_the_owners_name(store: Store) -> None:
    study = benches.study(5)
    first = coordinator(store, study, in_process(study))
    holder = store.holder("toy")
    assert holder is not None
    with pytest.raises(StoreError, match=holder.owner):
        coordinator(store, study, in_process(study))
    assert first.run().state is StudyState.FINISHED


def test_a_coordinator_whose_lease_was_taken_stops_writing(store: Store) -> None:
    study = benches.study(10)

    def usurp(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.COMPLETED and trial.number == 2:
            holder = store.holder("toy")
            assert holder is not None
            store.acquire("toy", "another", 30, time.time(), replacing=holder.owner)

    with pytest.raises(LeaseLost, match="another"):
        coordinator(store, study, in_process(study), usurp).run()
    assert len(store.trials("toy")) == 3


def test_the_same_seed_proposes_the_same_and_a_resume_changes_nothing(store: Store, tmp_path: object) -> None:
    study = benches.study(14, search={"sampler": "bayesian", "initial": 4, "seed": 7})
    coordinate(store, study, in_process(study))
    other = Store.open(f"sqlite:///{tmp_path}/other.db")
    half = study.model_copy(update={"budget": study.budget.model_copy(update={"trials": 9})})
    coordinate(other, half, in_process(half))
    coordinate(other, study, in_process(study))
    assert [t.candidate for t in other.trials("toy")] == [t.candidate for t in store.trials("toy")]
    other.close()


def test_hours_are_a_budget_too(store: Store) -> None:
    study = benches.study(budget={"hours": 0.0002})
    outcome = coordinate(store, study, in_process(study, slow=0.02))
    assert (outcome.state, "hours" in outcome.message) == (StudyState.FINISHED, True)
    assert 1 <= len(store.trials("toy")) < 60
    assert store.study("toy").hours >= 0.0002
