"""A bench that is told to go, or finds its disk full: what it leaves, and what another one makes of it."""

import errno
from pathlib import Path

import pytest

from hpo.compress.curve_recorder import CurveRecorder
from hpo.compress.pausing import SHORT_STEPS
from hpo.run.job import FIRST_STAGE, Job
from hpo.run.workbench import Workbench
from hpo.space import Candidate, Value
from hpo.trial import Cause
from tests.disks import filled, small_disk
from tests.run.healing import HEALED, healing_study, stages_of
from tests.run.test_launch import study


@pytest.fixture
def healer(short_reference: Path) -> Workbench:
    made = Workbench(healing_study().to_mapping())
    made.setup()
    return made


# Told to go


def told_to_go(bench: Workbench, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell a bench to go when so many steps of a healing are taken."""
    taken = iter(range(1, 10**6))
    original = CurveRecorder.step

    def step(recorder: CurveRecorder, loss: float) -> None:
        original(recorder, loss)
        if next(taken) == after:
            bench.preempt()

    monkeypatch.setattr(CurveRecorder, "step", step)


def checkpoints(cache: Path) -> list[Path]:
    return list((cache / "checkpoints").rglob("*.safetensors"))


@pytest.fixture
def checkpoint_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("hpo.compress.keeper.cache_dir", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(("after", "stopped"), [(5, "heal"), (SHORT_STEPS + 1, "heal_on")])
def test_a_bench_that_is_told_to_go_leaves_a_healing_that_another_one_ends(
    short_reference: Path, checkpoint_cache: Path, monkeypatch: pytest.MonkeyPatch, after: int, stopped: str
) -> None:
    job = Job(1, 1, Candidate.of(HEALED), "")
    benches = [Workbench(healing_study().to_mapping()) for _ in range(3)]
    whole = stages_of(benches[0], job)
    benches[0].forget()
    assert checkpoints(checkpoint_cache) == [], "a trial that is over leaves none"

    with monkeypatch.context() as patch:
        told_to_go(benches[1], after, patch)
        cut = stages_of(benches[1], job)
    assert list(cut)[-1] == stopped
    failure = cut[stopped].failure
    assert failure is not None
    assert failure.cause is Cause.PREEMPTED
    benches[1].forget()
    assert len(checkpoints(checkpoint_cache)) == 1

    steps: list[float] = []
    original = CurveRecorder.step

    def step(recorder: CurveRecorder, loss: float) -> None:
        steps.append(loss)
        original(recorder, loss)

    with monkeypatch.context() as patch:
        patch.setattr(CurveRecorder, "step", step)
        again = stages_of(benches[2], Job(1, 2, job.candidate, ""))
    assert len(steps) == SHORT_STEPS + 3 - after
    assert list(again) == list(whole)
    assert again["heal"].notes == whole["heal"].notes
    assert again["heal_on"].notes == whole["heal_on"].notes
    assert again["heal_on"].curve == whole["heal_on"].curve
    assert again["measure"].measurements == whole["measure"].measurements
    benches[2].forget()
    assert checkpoints(checkpoint_cache) == []


def test_a_bench_that_is_told_to_go_while_it_measures_stops_at_the_next_batch(
    healer: Workbench, checkpoint_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.measure.likelihood._BATCH_TOKENS", 512)  # several batches
    job = Job(1, 1, Candidate.of({**HEALED, "heal.steps": 2}), "")
    for stage in ("compress", "heal"):
        assert healer.run(job, stage).failure is None
    model, _ = healer._current(job)
    batches: list[int] = []

    def count(*_: object) -> None:
        batches.append(1)
        if len(batches) == 2:
            healer.preempt()

    hook = model.register_forward_hook(count)
    failure = healer.run(job, "measure").failure
    hook.remove()
    assert failure is not None
    assert failure.cause is Cause.PREEMPTED
    assert len(batches) == 2
    assert not model._forward_pre_hooks
    healer.forget()
    assert len(checkpoints(checkpoint_cache)) == 1, "the healing, which was done, need not be done again"


def test_no_stage_begins_on_a_bench_that_was_told_to_go(healer: Workbench) -> None:
    healer.preempt()
    failure = healer.run(Job(1, 1, Candidate.of(HEALED), ""), FIRST_STAGE).failure
    assert failure is not None
    assert failure.cause is Cause.PREEMPTED


# A disk that is full


def test_a_trial_that_needs_room_on_a_full_disk_fails_by_name_and_the_next_one_works(
    short_reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: dict[str, Value] = {**HEALED, "heal": "nested", "heal.steps": 2, "heal.top_keep_ratio": 0.6}
    space = {name: {"type": "choice", "choices": [value]} for name, value in shared.items()}
    bench, job = Workbench(study(space=space).to_mapping()), Job(1, 1, Candidate.of(shared), "")
    bench.setup()
    with small_disk(tmp_path / "disk") as disk:
        monkeypatch.setattr("hpo.compress.warm.cache_dir", lambda: disk)
        with monkeypatch.context() as patch:
            ballast = filled(disk)
            if ballast is None:
                patch.setattr("hpo.compress.nested.save_file", no_room)
            failed = stages_of(bench, job)
        assert list(failed) == ["compress", "screen", "heal"]
        failure = failed["heal"].failure
        assert failure is not None
        assert failure.cause is Cause.ERROR
        assert "No space left" in failure.message
        assert "HPO_CACHE" in failure.message
        assert [path for path in disk.rglob("*.safetensors") if path.is_file()] == []
        bench.forget()
        if ballast is not None:
            ballast.unlink()
        again = stages_of(bench, Job(1, 2, job.candidate, ""))
        assert {result.failure for result in again.values()} == {None}
        assert list(again)[-1] == "time"


def test_a_healing_on_a_full_disk_goes_on_without_checkpoints(
    healer: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = stages_of(healer, Job(1, 1, Candidate.of(HEALED), ""))
    healer.forget()
    with small_disk(tmp_path / "disk") as disk:
        ballast = filled(disk)
        if ballast is None:
            monkeypatch.setattr("hpo.compress.checkpoint.save_file", no_room)
        monkeypatch.setattr("hpo.compress.keeper.cache_dir", lambda: disk)
        found = stages_of(healer, Job(1, 1, Candidate.of(HEALED), ""))
        assert {result.failure for result in found.values()} == {None}
        assert found["heal_on"].notes == expected["heal_on"].notes
        assert "goes on without a checkpoint" in caplog.text
        assert [path for path in (disk / "checkpoints").rglob("*") if path.is_file()] == []
        healer.forget()


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
