"""A study that refines its front at the end, under a real coordinator and a real store."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hpo.problem import Problem
from hpo.run.phases import Phases
from hpo.search.descent import parent
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.study import Study
from hpo.trial import Trial, TrialState
from tests.run import benches
from tests.run.conftest import coordinate, coordinator, in_process

STEPS = (0.03, 0.0005, -0.01)
"""Far enough to be measured, a step on the way, and worse: a greater x looks and is better."""


def near(candidate: Candidate, count: int, seed: int) -> list[Candidate]:
    """Return moves of x, which leave the space by a value that it does not know."""
    steps = np.random.default_rng(seed).choice(STEPS, size=count)
    x = benches.x_of(candidate)
    moved = dict.fromkeys(round(min(x + step, 0.99), 6) for step in steps.tolist())
    return [Candidate.of({"x": value, "moved": 1}) for value in moved]


@pytest.fixture(autouse=True)
def movable(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = benches.problem

    def problem(of: Study, tiers: tuple[str, ...] = ()) -> Problem:
        return replace(plain(of, tiers), moves=near)

    monkeypatch.setattr(benches, "problem", problem)


def refining(trials: int = 20, share: float = 0.4, **changes: Any) -> Study:
    search = {"sampler": "sobol", "initial": 4, "stopping": "none", "refine": share}
    return benches.study(trials, search=search, **changes)


def run(store: Store, study: Study) -> tuple[Trial, ...]:
    assert coordinate(store, study, in_process(study), tiers=("glimpse",)).state is StudyState.FINISHED
    return store.trials("toy")


def asked(trials: tuple[Trial, ...]) -> list[tuple[str, Candidate]]:
    return [(trial.origin, trial.candidate) for trial in trials]


def test_the_last_share_of_the_trials_are_moves(store: Store) -> None:
    trials = run(store, refining())
    assert len(trials) == 20
    assert [parent(trial) is not None for trial in trials] == [False] * 12 + [True] * 8


def test_a_move_is_measured_if_it_looks_enough_better_and_else_stopped_with_the_reason(store: Store) -> None:
    trials = run(store, refining(40))
    moved = [trial for trial in trials if parent(trial) is not None]
    assert len(moved) == 16
    kinds = set()
    for trial in moved:
        before = trials[parent(trial) or 0]
        step = round(benches.x_of(trial.candidate) - benches.x_of(before.candidate), 4)
        if trial.state is TrialState.COMPLETED:
            kinds.add("measured")
            assert step > 0
            assert trial.value("perplexity") is not None
        else:
            assert trial.state is TrialState.STOPPED
            assert [stage.stage for stage in trial.stages] == ["compress"]
            kinds.add("worse" if step < 0 else "on the way")
            assert ("is not below" if step < 0 else "a step on the way") in trial.message
    assert kinds >= {"measured", "worse"}


def test_anchors_and_given_candidates_are_moved_but_never_stopped(store: Store) -> None:
    search = {"sampler": "sobol", "initial": 4, "refine": 0.5, "first": [{"x": 0.4}, {"x": 0.7}]}
    trials = run(store, benches.study(12, search=search))
    for trial in trials:
        if trial.origin.startswith(("anchor", "given")):
            assert trial.state is TrialState.COMPLETED
    assert any(trials[parent(t) or 0].origin.startswith(("anchor", "given")) for t in trials if parent(t))


@pytest.mark.parametrize("ends_at", [10, 13, 17])
def test_a_study_that_is_stopped_and_resumed_asks_the_same(ends_at: int, store: Store, tmp_path: Any) -> None:
    whole = asked(run(store, refining()))
    with Store.open(f"sqlite:///{tmp_path}/again.db") as again:
        study = refining()

        def interrupt(kind: EventKind, trial: Trial) -> None:
            if trial.number == ends_at:
                current.cancel()

        current = coordinator(again, study, in_process(study), interrupt, ("glimpse",))
        assert current.run().state is StudyState.STOPPED
        assert len(again.trials("toy")) < 20
        assert asked(run(again, study)) == whole


def test_nothing_is_refined_unless_asked(store: Store) -> None:
    assert all(parent(trial) is None for trial in run(store, refining(share=0.0)))


def test_without_anything_to_move_the_sampler_goes_on(store: Store) -> None:
    study = refining()
    outcome = coordinate(store, study, in_process(study))  # no tiers: nothing is ever looked at
    assert outcome.state is StudyState.FINISHED
    assert len(store.trials("toy")) == 20
    assert all(parent(trial) is None for trial in store.trials("toy"))


def test_a_space_without_more_plans_is_refined_early(store: Store) -> None:
    space = {"x": {"type": "choice", "choices": [0.2, 0.5]}}
    trials = run(store, refining(12, 0.1, space=space))
    assert len(trials) == 12
    assert sum(parent(trial) is not None for trial in trials) > 2


def test_a_budget_of_time_goes_over_to_refining_by_the_clock() -> None:
    study = refining(budget={"hours": 1.0})
    assert Phases(study, lambda: 0.59).sampled(1000) == math.inf
    assert Phases(study, lambda: 0.61).sampled(3) == 0.0


def test_of_two_budgets_the_first_to_come_near_its_end_counts() -> None:
    study = refining(budget={"trials": 10, "hours": 1.0})
    assert [Phases(study, lambda: 0.0).sampled(n) for n in (0, 5, 6, 9)] == [6, 1, 0, 0]
    assert Phases(study, lambda: 0.7).sampled(0) == 0.0
    assert Phases(refining(share=0.0), lambda: 1.0).sampled(50) == math.inf


@pytest.mark.parametrize("sampler", ["sobol", "tpe", "nsga2", "bayesian"])
def test_a_study_that_grows_searches_on_with_what_was_refined_in_its_history(
    sampler: str, store: Store
) -> None:
    search = {"sampler": sampler, "initial": 4, "refine": 0.4}
    first = run(store, benches.study(12, search=search))
    assert any(parent(trial) is not None for trial in first)
    more = benches.study(24, search=search)  # up to trial 15 they are the sampler's again
    coordinate(store, more, in_process(more), tiers=("glimpse",))
    trials = store.trials("toy")
    assert len(trials) == 24
    assert trials[:12] == first
    assert [trial.origin == sampler for trial in trials[12:]] == [True] * 3 + [False] * 9
