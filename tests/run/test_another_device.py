"""A real study that goes on where timings come from another device: what it measures again, what it keeps."""

from pathlib import Path
from typing import Any

import pytest

from hpo.run import workbench
from hpo.run.launch import Watcher, launch, resume
from hpo.run.more import More
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.study import Study
from hpo.trial import TrialState
from tests.run.test_launch import SILENT, study

OBJECTIVES = [{"metric": "perplexity", "limit": {"ratio_to_dense": 50}}, "weight_memory", "prefill_latency"]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


def move(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Let this machine pass for another one."""
    monkeypatch.setattr(workbench, "fingerprint", lambda *_: device)


def timed(trials: int) -> Study:
    return study(trials, objectives=OBJECTIVES)


def test_a_finished_study_is_measured_again_on_another_device_and_both_fronts_are_kept(
    short_reference: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(monkeypatch, "cpu: laptop")
    launch(store, timed(8), SILENT)
    before, first = {t.number: t for t in store.trials("small")}, store.front("small")
    assert first is not None
    move(monkeypatch, "cpu: cluster")
    told: list[str] = []
    outcome = resume(
        store, "small", Watcher(told.append, lambda kind, trial: None), more=More(remeasure=True)
    )
    assert outcome.state is StudyState.FINISHED
    assert any("to be measured again on this device" in line for line in told)
    trials = store.trials("small")
    assert len(trials) == 8
    again = {t.number for t in trials if t.value("prefill_latency") is not None}
    assert again >= {*first.members, *(n for n, t in before.items() if t.origin.startswith("anchor"))}
    for trial in trials:
        assert trial.state is TrialState.COMPLETED
        # The model is made and healed alike, so what is no timing is as it was: to the bit, for it is kept.
        assert trial.value("perplexity") == before[trial.number].value("perplexity")
        latency = trial.measurement("prefill_latency")
        assert latency is None or latency.device == "cpu: cluster"
    reopened = [e for e in store.events("small") if e.kind is EventKind.REOPENED]
    assert {e.payload["why"] for e in reopened} == {
        "prefill_latency, prefill_latency_ratio of another device"
    }
    stages = {stage.stage for t in trials if t.number in again for stage in t.stages}
    assert stages <= {"compress", "heal", "heal_on", "time"}, "neither screened nor judged again"
    laptop, cluster = store.devices("small")
    assert (laptop.name, laptop.trials) == ("cpu: laptop", 8)
    assert (cluster.name, cluster.trials) == ("cpu: cluster", len(again))
    there = {t.number: t.value("prefill_latency") for t in store.trials_on("small", "cpu: laptop")}
    assert there == {n: t.value("prefill_latency") for n, t in before.items()}


def test_back_on_the_first_device_only_what_was_never_measured_there_is_measured(
    short_reference: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    move(monkeypatch, "cpu: laptop")
    launch(store, timed(3), SILENT)
    before = {t.number: t.value("prefill_latency") for t in store.trials("small")}
    move(monkeypatch, "cpu: cluster")
    resume(store, "small", SILENT, more=More(trials=4))
    move(monkeypatch, "cpu: laptop")
    resume(store, "small", SILENT, more=More(trials=5))
    after = {t.number: t.value("prefill_latency") for t in store.trials("small")}
    assert {n: after[n] for n in before} == before, "what was measured here once is taken from the store"
    assert {t.measurement("prefill_latency").device for t in store.trials("small")} == {"cpu: laptop"}  # type: ignore[union-attr]  # all are anchors
    assert [d.name for d in store.devices("small")] == ["cpu: laptop", "cpu: cluster"]
