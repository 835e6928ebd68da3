"""What an event keeps of a healing, also where the trial is given up at its pause."""

from dataclasses import replace

import pytest

from hpo.healing_curve import HealingCurve
from hpo.run.coordinator import Coordinator
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import TrialState
from tests.run import benches
from tests.run.conftest import coordinate, in_process

CURVE = HealingCurve("cross_entropy", ((1, 3.0), (2, 2.5)), ((0, 4.0), (2, 3.5)))


@pytest.fixture
def healing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first stage of every trial tell of a healing."""
    plain = benches.ToyBench.run

    def run(self: benches.ToyBench, job: Job, stage: str) -> StageResult:
        result = plain(self, job, stage)
        return replace(result, curve=CURVE) if stage == FIRST_STAGE else result

    monkeypatch.setattr(benches.ToyBench, "run", run)


@pytest.mark.usefixtures("healing")
def test_a_trial_that_is_given_up_keeps_its_curve(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def verdict(self: Coordinator, trial: object, result: StageResult) -> str:
        return "not worth it" if result.stage == FIRST_STAGE else ""

    monkeypatch.setattr(Coordinator, "_hopeless_trial", verdict)
    study = benches.study(2)
    coordinate(store, study, in_process(study))
    (event,) = [e for e in store.trial_events("toy", 1) if e.kind is EventKind.STOPPED]
    assert store.trial("toy", 1).state is TrialState.STOPPED
    assert event.payload == {"after": FIRST_STAGE, "curve": CURVE.to_mapping()}
    assert store.healing_curve("toy", 1) == CURVE


@pytest.mark.usefixtures("healing")
def test_stages_that_heal_nothing_have_no_curve(store: Store) -> None:
    study = benches.study(1)
    coordinate(store, study, in_process(study))
    done = [e.payload for e in store.trial_events("toy", 0) if e.kind is EventKind.STAGE_DONE]
    assert [payload["stage"] for payload in done if "curve" in payload] == [FIRST_STAGE]
    assert store.healing_curve("toy", 0) == CURVE
