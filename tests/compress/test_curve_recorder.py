"""A healing's losses as they are written down: where, how many, and that training is none the wiser."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.compress import treatment
from hpo.compress.curve_recorder import MOST_POINTS, CurveRecorder
from hpo.compress.method import Healed
from hpo.compress.nested import _shared_curve
from hpo.compress.pausing import run_out
from hpo.healing_curve import HealingCurve
from hpo.models.dense import DenseModel
from hpo.space import Value
from tests.compress.healing import FACTORISED, heal, patient, taught
from tests.compress.test_pausing import begun


@pytest.fixture
def dense() -> DenseModel:
    return taught()


def test_a_short_course_is_kept_step_by_step() -> None:
    recorder = CurveRecorder("distil", 3)
    recorder.mark(5.0)
    for loss in (4.0, 3.0, 2.5):
        recorder.step(loss)
    recorder.mark(2.75)
    assert recorder.curve == HealingCurve("distil", ((1, 4.0), (2, 3.0), (3, 2.5)), ((0, 5.0), (3, 2.75)))


def test_a_long_course_is_averaged_over_equal_parts_and_the_rest() -> None:
    recorder = CurveRecorder("cross_entropy", 250)  # three steps a point, and one is left over
    for step in range(250):
        recorder.step(float(step))
    curve = recorder.curve
    assert curve.trained[:2] == ((3, 1.0), (6, 4.0))
    assert curve.trained[-1] == (250, 249.0)
    assert len(curve.trained) == 84


@pytest.mark.parametrize("steps", [1, 99, 100, 101, 1000, 12_345])
def test_there_are_never_more_points_than_a_figure_needs(steps: int) -> None:
    recorder = CurveRecorder("cross_entropy", steps)
    for _ in range(steps):
        recorder.step(1.0)
        recorder.check(1.0)
    assert len(recorder.curve.trained) <= MOST_POINTS
    assert len(recorder.curve.checked) <= MOST_POINTS
    assert recorder.curve.trained[-1][0] == steps


def test_a_mark_is_kept_where_a_check_would_be_too_soon_and_takes_its_place() -> None:
    recorder = CurveRecorder("cross_entropy", 1000)
    recorder.mark(3.0)
    for _ in range(5):
        recorder.step(2.0)
    recorder.check(2.5)
    seen = [list(recorder.curve.checked)]
    recorder.mark(2.5)
    recorder.mark(2.25)
    seen.append(list(recorder.curve.checked))
    assert seen == [[(0, 3.0)], [(0, 3.0), (5, 2.25)]]


def test_the_loss_of_a_broken_model_is_no_point() -> None:
    recorder = CurveRecorder("cross_entropy", 10)
    recorder.mark(3.0)
    recorder.mark(math.inf)
    assert recorder.curve.checked == ((0, 3.0),)


@pytest.mark.parametrize(
    ("trained", "checked", "said"),
    [
        (((2, 1.0), (1, 1.0)), (), "rise from 0"),
        ((), ((-1, 1.0),), "rise from 0"),
        (((1, math.nan),), (), "finite losses only"),
        ((), ((0, math.inf),), "finite losses only"),
    ],
)
def test_a_curve_that_cannot_be_is_refused(trained: Any, checked: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HealingCurve("cross_entropy", trained, checked)


def test_a_curve_survives_json() -> None:
    curve = HealingCurve("distil", ((1, 0.5), (2, 0.25)), ((0, 3.25), (2, 3.125)))
    assert HealingCurve.from_mapping(json.loads(json.dumps(curve.to_mapping()))) == curve
    assert curve.steps == 2
    assert HealingCurve("distil").steps == 0


# Through real healings


def test_a_healing_tells_the_losses_that_it_reports(
    dense: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(treatment, "SHORT_STEPS", 4)
    run = begun(patient(dense, {"heal": "fine_tune", "steps": 8, "learning_rate": 3e-3}))
    paused = next(run)
    assert paused.curve is not None
    assert [step for step, _ in paused.curve.trained] == [1, 2, 3, 4]
    assert [step for step, _ in paused.curve.checked] == [0, 4]
    assert paused.curve.checked[1][1] == pytest.approx(paused.loss, rel=1e-5)
    healed: Healed = run_out(run)
    assert healed.curve is not None
    assert healed.curve.trained[:4] == paused.curve.trained
    assert [step for step, _ in healed.curve.trained] == list(range(1, 9))
    assert [step for step, _ in healed.curve.checked] == [0, 4, 8]
    first, _, last = (loss for _, loss in healed.curve.checked)
    assert (first, last) == pytest.approx((healed.before, healed.after), rel=1e-5)


def test_two_phases_are_one_course(dense: DenseModel) -> None:
    two: dict[str, Value] = {"heal": "lora", "rank": 3, "order": "right_then_left", "steps": 5}
    healed = heal(patient(dense, {**two, "learning_rate": 3e-3}))
    assert healed.curve is not None
    assert [step for step, _ in healed.curve.trained] == [1, 2, 3, 4, 5]
    assert healed.curve.loss == "cross_entropy"


def test_checks_of_patience_are_points_and_the_best_is_what_is_reported(dense: DenseModel) -> None:
    bold: dict[str, Value] = {
        "schedule": "constant",
        "learning_rate": 0.3,
        "steps": 30,
        "patience": 2,
        "check_every": 2,
    }
    healed = heal(patient(dense, {"heal": "fine_tune", **bold}, FACTORISED["mild"]))
    assert healed.curve is not None
    assert [step for step, _ in healed.curve.checked] == list(range(0, healed.steps + 1, 2))
    assert min(loss for _, loss in healed.curve.checked[1:]) == pytest.approx(healed.after, rel=1e-5)


def test_trials_of_a_shared_run_show_its_curve_between_their_own_ends(
    dense: DenseModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path))
    curves = []
    for keep_ratio in (0.6, 0.3):
        factorised: dict[str, Value] = {"factorise": "whitened_svd", "factorise.keep_ratio": keep_ratio}
        knobs: dict[str, Value] = {"heal": "nested", "steps": 5, "learning_rate": 3e-3, "top_keep_ratio": 0.6}
        healed = heal(patient(dense, knobs, factorised))
        assert healed.curve is not None
        assert healed.curve.checked[0] == (0, healed.before)
        assert healed.curve.checked[-1] == (5, healed.after)
        curves.append(healed.curve)
    assert curves[0].trained == curves[1].trained
    assert [step for step, _ in curves[0].trained] == [1, 2, 3, 4, 5]
    assert curves[0].checked != curves[1].checked


def test_a_shared_run_kept_without_a_curve_has_none() -> None:
    assert _shared_curve({"steps": 2, "is_sound": True}, 3.0, 2.0) is None


def test_nothing_is_evaluated_for_the_curve(dense: DenseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards: list[bool] = []
    six: dict[str, Value] = {"heal": "fine_tune", "steps": 6, "learning_rate": 3e-3}
    sick = patient(dense, six)
    sick.model.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))
    heal(sick)
    recorded, forwards[:] = len(forwards), []

    class Deaf(CurveRecorder):
        def step(self, loss: float) -> None: ...
        def mark(self, loss: float) -> None: ...

    monkeypatch.setattr(treatment, "CurveRecorder", Deaf)
    again = patient(dense, six)
    again.model.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))
    heal(again)
    assert recorded == len(forwards) > 6
