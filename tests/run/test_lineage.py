"""Which trial a healing starts from, and that the trial says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.deliver.rebuild import rebuild
from hpo.problem import Preview, Problem
from hpo.run.launch import launch
from hpo.run.lineage import PARENT, parent_of, wants_parent
from hpo.space import Candidate, Choice, SearchSpace
from hpo.store.store import Store
from hpo.trial import Trial, TrialState
from tests.run.test_launch import SILENT, study


def candidate(keep_ratio: float, method: str = "svd", start: str = "nearest") -> Candidate:
    return Candidate.of(
        {"factorise": method, "factorise.keep_ratio": keep_ratio, "heal": "fine_tune", "heal.start": start}
    )


def trial(
    number: int, asked: Candidate, state: TrialState = TrialState.COMPLETED, kept: float = 1.0
) -> Trial:
    return Trial(number, asked, "sobol", f"plan-{number}", state, notes={"heal_kept": kept})


def _preview(candidates: Any) -> Preview:
    features = np.array([[float(c.values["factorise.keep_ratio"])] for c in candidates])
    count = len(candidates)
    return Preview(np.zeros((count, 0)), features, ("plan",) * count, ("",) * count)


@pytest.fixture
def problem() -> Problem:
    space = SearchSpace.of([("factorise", Choice(choices=("svd", "mpo")))])
    return Problem(space, study().objectives, (), _preview)


def test_the_nearest_healed_trial_of_the_same_method_is_the_parent(problem: Problem) -> None:
    trials = [
        trial(0, candidate(0.51), TrialState.FAILED),
        trial(1, candidate(0.52), kept=0.0),
        trial(2, candidate(0.50, "mpo")),
        trial(3, candidate(0.30)),
        trial(4, candidate(0.60, start="fresh")),
        trial(5, candidate(0.40)),
    ]
    found = parent_of(problem, trials, candidate(0.5))
    assert found is not None
    assert found.number == 4  # as near as 5, and before it


def test_who_does_not_ask_or_has_nobody_gets_no_parent(problem: Problem) -> None:
    trials = [trial(0, candidate(0.3))]
    assert not wants_parent(candidate(0.5, start="fresh"))
    assert parent_of(problem, trials, candidate(0.5, start="fresh")) is None
    assert parent_of(problem, trials, candidate(0.5, "mpo")) is None
    assert parent_of(problem, [], candidate(0.5)) is None


def test_a_study_with_warm_continuation_says_so_and_its_models_can_be_made_again(
    short_reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    space = {
        "factorise": "whitened_svd",
        "factorise.keep_ratio": {"type": "float", "low": 0.4, "high": 0.9},
        "heal": "fine_tune",
        "heal.steps": 12,
        "heal.learning_rate": 3.0e-3,
        "heal.start": {"type": "choice", "choices": ["fresh", "nearest"]},
    }
    with Store.open(f"sqlite:///{tmp_path}/study.db") as store:
        launch(store, study(trials=10, space=space), SILENT)
        trials = {t.number: t for t in store.trials("small")}
        record = store.study("small")
    warm = [t for t in trials.values() if PARENT in t.notes]
    assert warm
    assert all(wants_parent(t.candidate) and float(t.notes[PARENT]) < t.number for t in warm)
    last = warm[-1]
    for entry in (tmp_path / "cache" / "healed").rglob("factors.safetensors"):
        entry.unlink()  # so that the parents must be made first
    again = rebuild(record, last, trials)
    assert again.is_same
