"""Trials: each move of the state diagram, each one that is refused, and the way through JSON."""

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hpo.metric import METRICS, Metric, Source
from hpo.space import Candidate
from hpo.trial import (
    Cause,
    LayerRecord,
    Limit,
    Measurement,
    Objective,
    StageTime,
    Trial,
    TrialState,
    WrongState,
)

calm = settings(deadline=None, max_examples=80)

Move = Callable[[Trial], Trial]
MOVES: dict[str, Move] = {
    "started": lambda t: t.started("worker-1", 10.0),
    "advanced": lambda t: t.advanced(StageTime("screen", 2.5)),
    "completed": lambda t: t.completed(20.0),
    "stopped": lambda t: t.stopped("dominated", 20.0),
    "failed": lambda t: t.failed(Cause.OUT_OF_MEMORY, "no room", 20.0),
    "requeued": lambda t: t.requeued(),
}
LEGAL = {
    ("waiting", "started"): TrialState.RUNNING,
    ("waiting", "failed"): TrialState.FAILED,
    ("running", "advanced"): TrialState.RUNNING,
    ("running", "completed"): TrialState.COMPLETED,
    ("running", "stopped"): TrialState.STOPPED,
    ("running", "failed"): TrialState.FAILED,
    ("running", "requeued"): TrialState.WAITING,
}


def _measured(value: float = 12.5) -> Measurement:
    return Measurement("perplexity", value, "ppl", Source.MEASURED, 0.1, 5, "cpu:x", "windows")


def _in(state: str) -> Trial:
    waiting = Trial(3, Candidate.of({"factorise": "svd"}), "sobol", "abc", created_at=1.0)
    if state == "waiting":
        return waiting
    running = waiting.started("worker-0", 5.0).advanced(StageTime("compress", 1.5), [_measured()], {"a": 1})
    return running if state == "running" else MOVES[state.removesuffix("_")](running)


@pytest.mark.parametrize("state", list(TrialState))
@pytest.mark.parametrize("move", MOVES)
def test_a_trial_moves_as_the_diagram_says_and_refuses_the_rest(state: str, move: str) -> None:
    trial = _in(state)
    if (state, move) in LEGAL:
        assert MOVES[move](trial).state is LEGAL[state, move]
    else:
        with pytest.raises(WrongState, match=f"trial 3 is {state}, not (running|waiting)"):
            MOVES[move](trial)
    assert trial == _in(state), "moving on returns a new trial"


def test_three_states_are_final() -> None:
    final = {state for state in TrialState if state.is_final}
    assert final == {TrialState.COMPLETED, TrialState.STOPPED, TrialState.FAILED}


def test_a_started_trial_knows_its_worker_and_has_measured_nothing() -> None:
    trial = _in("waiting").started("worker-1", 10.0)
    assert (trial.worker, trial.started_at, trial.measurements, trial.stages) == ("worker-1", 10.0, (), ())


def test_stages_measurements_and_notes_add_up() -> None:
    trial = _in("running").advanced(StageTime("quality", 2.0), [_measured(11.0)], {"b": 2.0})
    assert [stage.stage for stage in trial.stages] == ["compress", "quality"]
    assert trial.seconds == 3.5
    assert trial.notes == {"a": 1, "b": 2.0}
    assert [m.value for m in trial.measurements] == [12.5, 11.0]


def test_joules_add_up_over_stages_and_are_unknown_if_one_went_uncounted() -> None:
    start = _in("waiting").started("worker-1", 1.0)
    counted = start.advanced(StageTime("a", 1.0, 30.0)).advanced(StageTime("b", 1.0, 12.5))
    assert counted.joules == 42.5
    assert counted.advanced(StageTime("c", 1.0)).joules is None
    assert start.joules is None
    assert Trial.from_mapping(counted.to_mapping()) == counted


def test_the_last_measurement_of_a_metric_counts() -> None:
    trial = _in("running").advanced(StageTime("quality", 2.0), [_measured(11.0)])
    assert trial.value("perplexity") == 11.0
    assert trial.value("energy") is None
    assert trial.measurement("energy") is None


def test_ends_keep_when_and_why() -> None:
    running = _in("running")
    assert running.completed(20.0).finished_at == 20.0
    assert running.stopped("dominated", 21.0).message == "dominated"
    failed = running.failed(Cause.NOT_A_NUMBER, "loss is nan", 22.0)
    assert (failed.cause, failed.message, failed.finished_at) == (Cause.NOT_A_NUMBER, "loss is nan", 22.0)
    assert failed.measurements == running.measurements, "what was measured before the failure is kept"


def test_a_requeued_trial_is_the_next_attempt_as_if_never_started() -> None:
    again = _in("running").requeued()
    assert again.attempt == 2
    assert (again.worker, again.started_at, again.stages, again.notes) == ("", None, (), {})
    assert again.measurements == ()
    assert (again.number, again.candidate, again.plan_hash, again.created_at) == (
        3, Candidate.of({"factorise": "svd"}), "abc", 1.0,
    )  # fmt: skip


def test_the_trial_of_the_empty_candidate_is_the_dense_models() -> None:
    assert Trial(0, Candidate(), "anchor:dense").is_dense
    assert not _in("waiting").is_dense


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_or_spread_that_is_not_finite_is_no_measurement(bad: float) -> None:
    with pytest.raises(ValueError, match="both must be finite"):
        Measurement("perplexity", bad, "ppl", Source.MEASURED)
    with pytest.raises(ValueError, match="both must be finite"):
        Measurement("perplexity", 1.0, "ppl", Source.MEASURED, bad)


def test_a_measurement_has_no_negative_spread_and_at_least_one_repeat() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        Measurement("perplexity", 1.0, "ppl", Source.MEASURED, -0.1)
    with pytest.raises(ValueError, match="0 repeats, at least 1"):
        Measurement("perplexity", 1.0, "ppl", Source.MEASURED, repeats=0)


def test_a_measurement_from_an_unknown_source_is_refused() -> None:
    with pytest.raises(ValueError, match="guessed"):
        Measurement.from_mapping(_measured().to_mapping() | {"source": "guessed"})


def test_an_exact_measurement_has_its_metrics_unit_and_no_spread() -> None:
    found = Measurement.exact("weight_memory", 4096)
    assert (found.value, found.unit, found.source, found.spread) == (4096.0, "bytes", Source.EXACT, 0.0)
    assert isinstance(found.value, float)


finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), finite, st.text())
measurements = st.builds(
    Measurement,
    metric=st.sampled_from(sorted(METRICS)),
    value=finite,
    unit=st.text(),
    source=st.sampled_from(Source),
    spread=st.floats(0, allow_infinity=False),
    repeats=st.integers(1, 99),
    device=st.text(),
    note=st.text(),
)
trials = st.builds(
    Trial,
    number=st.integers(0, 10**6),
    candidate=st.dictionaries(st.text(), values, max_size=4).map(Candidate.of),
    origin=st.text(),
    plan_hash=st.text(),
    state=st.sampled_from(TrialState),
    attempt=st.integers(1, 9),
    measurements=st.lists(measurements, max_size=3).map(tuple),
    stages=st.lists(st.builds(StageTime, st.text(), finite), max_size=3).map(tuple),
    cause=st.none() | st.sampled_from(Cause),
    message=st.text(),
    worker=st.text(),
    created_at=finite,
    started_at=st.none() | finite,
    finished_at=st.none() | finite,
    notes=st.dictionaries(st.text(), finite, max_size=3),
)


@calm
@given(trials)
def test_a_trial_survives_json_exactly(trial: Trial) -> None:
    again = Trial.from_mapping(json.loads(json.dumps(trial.to_mapping())))
    assert again == trial
    assert again.candidate.key == trial.candidate.key
    assert isinstance(again.state, TrialState)
    assert again.to_mapping() == trial.to_mapping()


@calm
@given(measurements)
def test_a_measurement_survives_json_exactly(found: Measurement) -> None:
    again = Measurement.from_mapping(json.loads(json.dumps(found.to_mapping())))
    assert again == found
    assert isinstance(again.source, Source)


def test_a_layer_record_survives_json() -> None:
    record = LayerRecord("layers.0.q_proj", "low_rank", "rank 34", 1000, 4096, 4000)
    assert LayerRecord.from_mapping(json.loads(json.dumps(record.to_mapping()))) == record


def test_a_bare_number_is_a_limit_in_the_metrics_unit() -> None:
    assert Limit.model_validate(3) == Limit(value=3.0)
    assert Limit(value=3.0).resolve(None) == 3.0


def test_a_relative_limit_waits_for_the_dense_model() -> None:
    assert Limit(ratio_to_dense=1.5).resolve(None) is None
    assert Limit(ratio_to_dense=1.5).resolve(10.0) == 15.0


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"value": 1.0, "ratio_to_dense": 2.0},
        {"ratio_to_dense": 0},
        {"ratio_to_dense": -1},
        {"value": math.nan},
        {"value": math.inf},
        {"ratio": 2.0},
        math.inf,
        True,
        "small",
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        Limit.model_validate(wrong)


def test_a_bare_word_is_an_objective() -> None:
    assert Objective.model_validate("energy") == Objective(metric="energy")
    assert Objective(metric="weight_memory").is_exact
    assert not Objective(metric="perplexity").is_exact


def test_a_limit_is_kept_up_to_and_including_itself() -> None:
    objective = Objective(metric="perplexity", limit=Limit(ratio_to_dense=2.0))
    assert objective.within(20.0, dense=10.0)
    assert not objective.within(20.1, dense=10.0)
    assert objective.within(1e9, dense=None), "a limit that is not known yet holds nothing back"
    assert Objective(metric="perplexity").within(1e9, dense=10.0)


def test_where_higher_is_better_the_sign_is_flipped_and_a_limit_is_a_floor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accuracy = Metric("accuracy", "share", "higher", Source.MEASURED, "share of answers that are right")
    monkeypatch.setitem(METRICS, "accuracy", accuracy)
    objective = Objective(metric="accuracy", limit=Limit(ratio_to_dense=0.5))
    assert objective.loss(0.7) == -0.7
    assert objective.loss(objective.loss(0.7)) == 0.7
    assert objective.within(0.4, dense=0.8)
    assert not objective.within(0.39, dense=0.8)
