"""Launch and resume of real studies on a briefly trained reference model, in process."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import HpoError, InvalidStudy, UsageError
from hpo.run.bench import Setup
from hpo.run.launch import Watcher, check_budget, check_study, launch, resume
from hpo.run.lease import take_lease
from hpo.run.more import More
from hpo.run.workbench import Workbench
from hpo.search.descent import parent
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.study import Study
from hpo.trial import Trial, TrialState

SILENT = Watcher(lambda text: None, lambda kind, trial: None)
SPACE = {
    "factorise": {"type": "choice", "choices": ["whitened_svd", "mpo"]},
    "factorise.keep_ratio": {"type": "float", "low": 0.3, "high": 0.9, "when": {"factorise": "whitened_svd"}},
    "factorise.bond_dimension": {"type": "int", "low": 4, "high": 48, "when": {"factorise": "mpo"}},
    "heal": {"type": "choice", "choices": ["none", "fine_tune"]},
    "heal.steps": {"type": "int", "low": 2, "high": 4, "when": {"heal": "fine_tune"}},
}
# Everything here follows from weights and text, so that two runs can be compared to the bit.
OBJECTIVES = [
    {"metric": "perplexity", "limit": {"ratio_to_dense": 50}},
    "weight_memory",
    {"metric": "energy", "allow_modelled": True},
]


def study(trials: int = 6, **changes: Any) -> Study:
    document = {
        "version": 1,
        "name": "small",
        "model": "reference",
        "data": {
            "calibration": {"reference": True, "tokens": 2048},
            "evaluation": {"reference": True, "tokens": 2048},
        },
        "objectives": OBJECTIVES,
        "space": SPACE,
        "search": {"sampler": "sobol", "initial": 3},
        "budget": {"trials": trials},
        "run": {"runner": "in_process"},
    }
    return Study.from_mapping({**document, **changes})


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


def test_a_study_runs_on_a_real_model_from_launch_to_front(short_reference: Path, store: Store) -> None:
    outcome = launch(store, study(), SILENT)
    trials, front = store.trials("small"), store.front("small")
    assert outcome.state is StudyState.FINISHED
    assert [t.origin for t in trials[:6]] == [
        "anchor:dense",
        "anchor:int8",
        "anchor:int4",
        "anchor:svd",
        "anchor:smallest",
        "anchor:largest",
    ]
    assert all(t.state is TrialState.COMPLETED for t in trials)
    assert front is not None
    assert front.members
    for trial in trials:
        for metric in ("perplexity", "nll", "bits_per_byte", "weight_memory", "parameters", "energy"):
            assert trial.value(metric) is not None
        energy = trial.measurement("energy")
        assert energy is not None
        assert energy.source in ("modelled", "measured")
        assert trial.measurement("weight_memory").source == "exact"  # type: ignore[union-attr]  # checked above
    assert store.study("small").environment["profile"]


def test_plans_are_stored_with_their_trials(short_reference: Path, store: Store) -> None:
    launch(store, study(4), SILENT)
    for trial in store.trials("small"):
        layers = store.plan("small", trial.number)
        assert len(layers) == 14
        kept = sum(layer.bytes for layer in layers)
        dense = sum(layer.dense_parameters for layer in layers) * 4
        assert (kept == dense) == trial.is_dense


def test_healing_curves_are_stored_with_the_trials_that_healed(short_reference: Path, store: Store) -> None:
    space = {**SPACE, "heal": {"type": "choice", "choices": ["fine_tune"]}}
    launch(store, study(8, space=space), SILENT)
    healed = [trial for trial in store.trials("small") if "heal_steps" in trial.notes]
    assert healed
    for trial in healed:
        curve = store.healing_curve("small", trial.number)
        assert curve is not None
        assert curve.steps == trial.notes["heal_steps"] == len(curve.trained)
        ends = [curve.checked[0][1], curve.checked[-1][1]]
        assert ends == pytest.approx([trial.notes[f"heal_nll_{when}"] for when in ("before", "after")], 1e-5)
    assert store.healing_curve("small", 0) is None, "the dense model is not healed"


def test_a_name_that_exists_is_refused_and_the_error_says_how_to_resume(
    short_reference: Path, store: Store
) -> None:
    launch(store, study(2), SILENT)
    with pytest.raises(UsageError, match="already a study 'small'") as caught:
        launch(store, study(2), SILENT)
    assert "hpo resume small" in caught.value.hint
    assert "--name" in caught.value.hint


def test_resuming_a_finished_study_needs_more_budget(short_reference: Path, store: Store) -> None:
    launch(store, study(3), SILENT)
    with pytest.raises(UsageError, match="finished") as caught:
        resume(store, "small", SILENT)
    assert "--trials" in caught.value.hint
    with pytest.raises(UsageError, match="below the budget"):
        resume(store, "small", SILENT, more=More(trials=2))
    with pytest.raises(UsageError, match="finished within just that budget, 3 trials"):
        resume(store, "small", SILENT, more=More(trials=3))
    assert resume(store, "small", SILENT, more=More(trials=5)).state is StudyState.FINISHED
    assert len(store.trials("small")) == 5
    assert store.study("small").study.budget.trials == 5


def test_a_real_front_is_refined_by_moves_that_cost_the_same_and_look_better(
    short_reference: Path, store: Store
) -> None:
    objectives = [{"metric": "perplexity", "limit": {"ratio_to_dense": 50}}, "macs"]
    search = {"sampler": "sobol", "initial": 3, "refine": 0.5, "stopping": "none"}
    space = {"factorise": "whitened_svd", "factorise.keep_ratio": {"type": "float", "low": 0.3, "high": 0.9}}
    launch(store, study(16, objectives=objectives, search=search, space=space), SILENT)
    trials = store.trials("small")
    moved = [trial for trial in trials if parent(trial) is not None]
    assert [trial.number for trial in moved] == list(range(8, 16))
    for trial in moved:
        before = trials[parent(trial) or 0]
        assert "factorise.shift" in trial.candidate.values or "quantize.shift" in trial.candidate.values
        mine, theirs = trial.notes["screen_kl"], before.notes["screen_kl"]
        assert isinstance(mine, float)
        assert isinstance(theirs, float)
        if trial.state is TrialState.COMPLETED:
            assert mine < theirs
            assert _macs(trial, trials) <= 1.005 * _macs(before, trials)
        else:
            assert trial.state is TrialState.STOPPED
            assert trial.measurements == ()
    assert {trial.state for trial in moved} == {TrialState.COMPLETED, TrialState.STOPPED}


def _macs(trial: Trial, trials: Sequence[Trial]) -> float:
    """Return the MACs of a trial, or of the last one measured that it was moved from."""
    while trial.state is not TrialState.COMPLETED:
        trial = trials[parent(trial) or 0]
    found = trial.value("macs")
    assert found is not None
    return found


def test_a_study_stored_before_there_were_budgets_in_joules_or_a_plateau_rule_resumes_as_it_is(
    short_reference: Path, store: Store, tmp_path: Path
) -> None:
    launch(store, study(2), SILENT)
    with sqlite3.connect(tmp_path / "study.db") as connection:
        document = json.loads(connection.execute("SELECT document FROM study").fetchone()[0])
        for part, key in (("budget", "gpu_hours"), ("budget", "joules"), ("search", "plateau")):
            del document[part][key]
        del document["search"]["refine"]
        connection.execute("UPDATE study SET state = 'stopped', document = ?", [json.dumps(document)])
    assert resume(store, "small", SILENT).state is StudyState.FINISHED
    assert EventKind.AMENDED not in [event.kind for event in store.events("small")]


@pytest.mark.parametrize(
    ("budget", "setup", "message", "hint"),
    [
        ({"gpu_hours": 1}, {}, "no GPU-hours .* workers run on 'cpu: X x2'", "budget.hours"),
        ({"joules": 1}, {}, "joules cannot be counted here.*hpo doctor", "gpu_hours"),
        ({"joules": 1}, {"energy_counter": "rapl"}, "for each of 2 workers", "run.workers to 1"),
    ],
)
def test_a_budget_that_the_workers_cannot_count_is_refused_before_the_first_trial(
    budget: dict[str, float], setup: dict[str, str], message: str, hint: str
) -> None:
    asked = study(budget=budget, run={"runner": "in_process", "workers": 2})
    found = Setup(None, "cpu: X x2", {}, setup.get("energy_counter", ""))
    with pytest.raises(InvalidStudy, match=message) as caught:
        check_budget(asked, found)
    assert hint in caught.value.hint
    assert caught.value.where == ("budget", *budget)


def test_a_budget_that_the_workers_can_count_is_taken() -> None:
    gpu = Setup(None, "cuda: H", {}, "nvml")
    check_budget(study(budget={"gpu_hours": 1, "joules": 1}, run={"workers": 2}), gpu)
    check_budget(study(budget={"joules": 1}), Setup(None, "cpu: X", {}, "rapl"))
    check_budget(study(budget={"trials": 1}), Setup(None, "cpu: X", {}, ""))


def test_a_budget_in_joules_without_a_counter_writes_nothing(
    short_reference: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.run.workbench.counter_available", lambda device: None)
    with pytest.raises(InvalidStudy, match="joules cannot be counted here"):
        launch(store, study(budget={"joules": 1e6}), SILENT)
    assert store.studies() == ()


def test_resuming_an_unknown_study_names_the_nearest(short_reference: Path, store: Store) -> None:
    launch(store, study(2), SILENT)
    with pytest.raises(UsageError, match="smal") as caught:
        resume(store, "smal", SILENT)
    assert "small" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"factorize": "svd"}}, "unknown stage 'factorize'"),
        ({"space": {"factorise": "svdd"}}, "unknown method 'svdd'"),
        ({"space": {"factorise": "svd", "factorise.keepratio": 0.5}}, "no knob 'keepratio'"),
        ({"space": {"factorise": "svd", "factorise.keep_ratio": 1.5}}, "cannot take keep_ratio=1.5"),
        ({"space": {"factorise.keep_ratio": 0.5}}, "needs the parameter 'factorise'"),
        ({"space": {"factorise": {"type": "float", "low": 0, "high": 1}}}, "is a range"),
        ({"model": {"source": "./nowhere/at/all"}}, "nowhere"),
        ({"objectives": [{"metric": "weight_memory", "limit": 10.0}]}, "no candidate keeps weight_memory"),
        ({"data": {"calibration": {"text": "no-such.txt"}, "evaluation": "reference"}}, "no-such.txt"),
    ],
)
def test_a_wrong_study_is_refused_and_nothing_is_written(
    short_reference: Path, store: Store, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidStudy, match=message):
        launch(store, study(**changes), SILENT)
    assert store.studies() == ()


def test_calibration_and_evaluation_of_the_same_text_are_refused(
    short_reference: Path, store: Store, tmp_path: Path
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same words over and over again. " * 100)
    data = {"calibration": {"text": str(tmp_path / "a.txt")}, "evaluation": {"text": str(tmp_path / "b.txt")}}
    with pytest.raises(InvalidStudy, match="must not be judged"):
        launch(store, study(data=data), SILENT)
    assert store.studies() == ()


def test_another_model_under_the_same_name_is_refused_on_resume(
    short_reference: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(store, study(2), SILENT)
    monkeypatch.setenv("HPO_REFERENCE_STEPS", "3")
    with pytest.raises(HpoError, match="since study 'small' was launched: the model or its calibration text"):
        resume(store, "small", SILENT, more=More(trials=3))
    assert len(store.trials("small")) == 2
    before = store.study("small").environment["profile"]
    told: list[str] = []
    watcher = Watcher(told.append, lambda kind, trial: None)
    resume(store, "small", watcher, more=More(trials=3, allow_drift=True))
    assert any(line.startswith("going on all the same: the model or its calibration") for line in told)
    assert store.study("small").environment["profile"] != before
    (note,) = [e.payload for e in store.events("small") if "drift" in e.payload]
    assert [drift["key"] for drift in note["drift"]] == ["profile"]
    assert note["before"]["profile"] == before


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over(
    short_reference: Path, store: Store
) -> None:
    import platform
    import time

    launch(store, study(2), SILENT)
    dead = f"{platform.node()}:999999999:abc"
    store.acquire("small", dead, 3600, time.time())
    assert take_lease(store, "small").owner != dead


def test_the_lease_of_a_living_process_is_not(short_reference: Path, store: Store) -> None:
    import os
    import platform
    import time

    launch(store, study(2), SILENT)
    store.acquire("small", f"{platform.node()}:{os.getpid()}:abc", 3600, time.time())
    with pytest.raises(HpoError, match="is being run by"):
        take_lease(store, "small")


@pytest.mark.postgres
@pytest.mark.parametrize("sampler", ["sobol", "tpe", "bayesian"])
def test_the_same_seed_gives_the_same_candidates_on_sqlite_and_postgresql(
    short_reference: Path, store: Store, postgres_url: str, sampler: str
) -> None:
    asked = study(9, search={"sampler": sampler, "seed": 3, "initial": 3})
    launch(store, asked, SILENT)
    with Store.open(postgres_url) as other:
        launch(other, asked, SILENT)
        theirs = other.trials("small")
    ours = store.trials("small")
    assert [t.candidate for t in ours] == [t.candidate for t in theirs]
    assert [t.value("perplexity") for t in ours] == [t.value("perplexity") for t in theirs]


def test_a_worker_that_plans_differently_refuses_to_run(short_reference: Path) -> None:
    from dataclasses import replace

    from hpo.compress.planner import plan_of
    from hpo.run.job import FIRST_STAGE, Job
    from hpo.space import Candidate

    bench = Workbench(study().to_mapping())
    bench.setup()
    candidate = Candidate.of({"factorise": "mpo", "factorise.bond_dimension": 8})
    job = Job(1, 1, candidate, plan_of(bench.profile, candidate).hash)
    assert bench.run(job, FIRST_STAGE).failure is None
    failure = bench.run(replace(job, plan_hash="another"), FIRST_STAGE).failure
    assert failure is not None
    assert "another" in failure.message


def test_every_shipped_study_passes_its_checks() -> None:
    from hpo.study_file import read_study, shipped

    for name in shipped("study"):
        check_study(read_study(name))
