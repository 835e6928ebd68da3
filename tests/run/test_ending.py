"""How studies end: by each budget, by the plateau rule, and how they go on from there."""

import time
from typing import Any

import pytest

from hpo.errors import UsageError
from hpo.run.coordinator import Outcome
from hpo.run.more import More, amended
from hpo.store.spending import Spent, spent_of
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.study import Study
from hpo.trial import Trial
from tests.run import benches
from tests.run.conftest import coordinate, coordinator, in_process

GPU = "cuda: a toy"
# Each trial of the toy bench has three stages of 0.01 s, and as many joules a stage as it is told.


def spent(store: Store) -> Spent:
    return spent_of(store.study("toy"), store.trials("toy"), store.lost_work("toy"))


def resumed(store: Store, more: More, **faults: Any) -> Outcome:
    study = amended(store.study("toy"), more)
    lease = store.acquire("toy", "amender", 30.0, time.time())
    store.replace_study(lease, study, "more", time.time())
    store.release(lease, time.time())
    return coordinate(store, study, in_process(study, **faults))


def test_gpu_hours_end_a_study_whose_workers_hold_gpus(store: Store) -> None:
    """Two GPUs for 0.03 s are 0.06 GPU-seconds a trial: the fifth one goes beyond 0.27."""
    study = benches.study(
        budget={"gpu_hours": 0.27 / 3600}, run={"runner": "in_process", "gpus_per_worker": 2}
    )
    outcome = coordinate(store, study, in_process(study, device=GPU))
    assert outcome.state is StudyState.FINISHED
    assert outcome.message == "the budget of GPU-hours is used: 8.33e-05 of 7.50e-05 GPU-hours"
    assert len(store.trials("toy")) == 5


def test_on_a_processor_no_gpu_hours_are_spent(store: Store) -> None:
    study = benches.study(6)
    coordinate(store, study, in_process(study, device="cpu: a toy"))
    assert spent(store).gpu_hours == 0
    assert spent(store).work.seconds == pytest.approx(0.18)


def test_joules_end_a_study_and_are_kept_with_each_stage(store: Store) -> None:
    study = benches.study(budget={"joules": 40})
    outcome = coordinate(store, study, in_process(study, joules=5.0))
    assert outcome.state is StudyState.FINISHED
    assert outcome.message == "the budget of joules is used: 45 of 40 J"
    trials = store.trials("toy")
    assert [[stage.joules for stage in t.stages] for t in trials] == [[5.0] * 3] * 3
    assert trials[0].joules == 15.0


def test_a_resumed_study_counts_what_was_spent_before(store: Store) -> None:
    study = benches.study(budget={"joules": 40, "trials": 100})
    coordinate(store, study, in_process(study, joules=5.0))
    outcome = resumed(store, More(joules=100), joules=5.0)
    assert outcome.message == "the budget of joules is used: 105 of 100 J"
    assert len(store.trials("toy")) == 7
    assert store.study("toy").study.budget.trials == 100


def test_hours_count_over_resumes_and_are_stored_while_a_run_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run.coordinator._BANK_H", 1e-9)
    study = benches.study(4)
    seen: list[float] = []

    def look(kind: EventKind, trial: Trial) -> None:
        seen.append(store.study("toy").hours)

    coordinate(store, study, in_process(study, slow=0.01), look)
    first = store.study("toy").hours
    assert 0 < seen[-1] < first
    assert first >= 4 * 0.03 / 3600
    outcome = resumed(store, More(trials=50, hours=first / 2 + 1e-9))
    assert outcome.message.startswith("the budget of hours is used")
    assert len(store.trials("toy")) == 4


def cancelled(store: Store, study: Study, at: int, **faults: Any) -> None:
    """Run a study until its trial `at` has done one stage, and cancel it there."""

    def cancel(kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.STAGE_DONE and trial.number == at:
            current.cancel()

    current = coordinator(store, study, in_process(study, **faults), cancel)
    assert current.run().state is StudyState.STOPPED


def test_the_work_on_an_attempt_that_was_lost_is_spent_too(store: Store) -> None:
    study = benches.study(6)
    cancelled(store, study, at=4, joules=5.0)
    lost = store.lost_work("toy")
    assert (lost.stages, lost.uncounted, lost.joules) == (2, 1, 5.0), "one stage done, one broken off"
    assert 0.01 <= lost.seconds < 1.0
    assert spent(store).work.joules == 4 * 15 + 5
    coordinate(store, study, in_process(study, joules=5.0))
    assert spent(store).work.joules == 6 * 15 + 5
    assert spent(store).text(study.budget) == "6 of 6 trials"


def test_joules_of_lost_attempts_bring_the_end_nearer(store: Store) -> None:
    study = benches.study(budget={"joules": 95})
    cancelled(store, study, at=4, joules=5.0)
    outcome = coordinate(store, study, in_process(study, joules=5.0))
    assert outcome.message == "the budget of joules is used: 95 of 95 J (without 1 stage that had no reading)"
    assert len(store.trials("toy")) == 6


@pytest.mark.parametrize(("joules", "why"), [(None, "no stage could be read"), (0.0, "stands still")])
def test_a_budget_in_joules_that_nobody_counts_ends_the_study_with_the_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch, joules: float | None, why: str
) -> None:
    monkeypatch.setattr("hpo.store.spending._BLIND_S", 0.1)
    study = benches.study(budget={"joules": 40})
    outcome = coordinate(store, study, in_process(study, joules=joules))
    assert outcome.state is StudyState.FAILED
    assert why in outcome.message
    assert len(store.trials("toy")) == 4
    outcome = coordinate(store, study, in_process(study, joules=5.0))
    assert outcome.state is StudyState.FINISHED, "where the counter is read again, the study goes on"


PLATEAU = {"sampler": "sobol", "initial": 4, "plateau": {"gain_per_hour": 1e9, "trials": 5}}


def test_a_front_that_grows_too_slowly_ends_the_study_as_soon_as_it_can_be_told(store: Store) -> None:
    """Three anchors, four of the start design, five that are judged."""
    study = benches.study(100, search=PLATEAU)
    outcome = coordinate(store, study, in_process(study))
    assert outcome.state is StudyState.FINISHED
    assert len(store.trials("toy")) == 12
    curve = {front.trials: front.hypervolume for front in store.fronts("toy") if front.hypervolume}
    gain = curve[max(curve)] - curve[max(n for n in curve if n <= 7)]
    assert f"the front grew by {gain:.2g} of the box in the last 5 trials (4.2e-05 h" in outcome.message
    assert "less than the 1e+09 asked for" in outcome.message
    assert store.study("toy").message == outcome.message


def test_a_front_that_grows_fast_enough_uses_the_budget(store: Store) -> None:
    study = benches.study(20, search={**PLATEAU, "plateau": {"gain_per_hour": 1e-9, "trials": 5}})
    assert coordinate(store, study, in_process(study)).message == "the budget of trials is used: 20 of 20"


def test_the_hours_of_the_rule_are_gpu_hours_where_trials_run_on_gpus(store: Store) -> None:
    study = benches.study(100, search=PLATEAU, run={"runner": "in_process", "gpus_per_worker": 2})
    message = coordinate(store, study, in_process(study, device=GPU)).message
    assert "(8.3e-05 GPU-hours)" in message
    assert "a GPU-hour at 95 %" in message


def test_a_larger_budget_goes_on_only_once_the_plateau_is_over_or_its_rule_dropped(store: Store) -> None:
    study = benches.study(30, search=PLATEAU)
    coordinate(store, study, in_process(study))
    outcome = resumed(store, More(trials=40))
    assert outcome.state is StudyState.FINISHED
    assert outcome.message.startswith("the plateau still holds and no trial was added (--no-plateau")
    assert len(store.trials("toy")) == 12
    outcome = resumed(store, More(without_plateau=True))
    assert outcome.message == "the budget of trials is used: 40 of 40"


def finished(store: Store, **changes: Any) -> None:
    study = benches.study(**changes)
    store.create_study(study, {}, 1.0)
    lease = store.acquire("toy", "me", 30.0, time.time())
    store.set_state(lease, StudyState.FINISHED, "it was enough", time.time())
    store.release(lease, time.time())


def test_a_finished_study_says_which_budgets_it_takes_more_of(store: Store) -> None:
    finished(store, budget={"trials": 5, "gpu_hours": 2, "joules": 3e4}, search=PLATEAU)
    with pytest.raises(UsageError, match="finished: it was enough") as caught:
        amended(store.study("toy"), More())
    assert caught.value.hint == (
        "give it more with: hpo resume toy --trials N --gpu-hours N --joules N "
        "(now 5 trials or 2 GPU-hours or 30,000 J), or go on without its plateau rule: --no-plateau"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (More(gpu_hours=1.5), "--gpu-hours 1.5 is below the budget of 2"),
        (More(joules=10), "--joules 10 is below the budget of 30000"),
        (More(trials=5), "finished within just that budget"),
        (More(trials=6, joules=1), "--joules 1 is below"),
    ],
)
def test_a_budget_that_shrinks_or_stays_is_refused(store: Store, more: More, message: str) -> None:
    finished(store, budget={"trials": 5, "gpu_hours": 2, "joules": 3e4})
    with pytest.raises(UsageError, match=message):
        amended(store.study("toy"), more)


def test_a_new_budget_leaves_the_others_and_the_rest_of_the_study(store: Store) -> None:
    finished(store, budget={"trials": 5, "gpu_hours": 2}, search=PLATEAU)
    before = store.study("toy").study
    after = amended(store.study("toy"), More(gpu_hours=3, hours=1.5))
    assert after.budget.model_dump() == {"trials": 5, "hours": 1.5, "gpu_hours": 3, "joules": None}
    assert after.model_copy(update={"budget": before.budget}) == before


def test_a_study_that_is_not_finished_goes_on_as_it_is(store: Store) -> None:
    study = benches.study(5, search=PLATEAU)
    store.create_study(study, {}, 1.0)
    assert amended(store.study("toy"), More()) == study
    assert amended(store.study("toy"), More(without_plateau=True)).search.plateau is None
