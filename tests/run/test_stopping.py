"""Trials that are not worth their measurements are stopped, recorded as such, and not lost."""

import pytest

from hpo.store.store import Store
from hpo.store.values import EventKind, StudyState
from hpo.study import Study
from hpo.trial import Trial, TrialState
from tests.run import benches
from tests.run.conftest import coordinate, coordinator, in_process

LIMITED = [{"metric": "perplexity", "limit": 1.25}, "weight_memory"]
"""Kept from x = 0.5 on: half of what a quasi-random search proposes is beyond it."""


def limited(stopping: str = "pareto", trials: int = 45) -> Study:
    search = {"sampler": "sobol", "initial": 4, "stopping": stopping}
    return benches.study(trials, objectives=LIMITED, search=search)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, ...]:
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('stopping')}/study.db") as store:
        study = limited()
        assert coordinate(store, study, in_process(study), tiers=("glimpse",)).state is StudyState.FINISHED
        events = [e for e in store.events("toy") if e.kind is EventKind.STOPPED]
        trials = store.trials("toy")
        assert [e.trial for e in events] == [t.number for t in trials if t.state is TrialState.STOPPED]
        return trials


def test_what_will_break_its_limit_is_stopped_before_it_is_measured(stopped: tuple[Trial, ...]) -> None:
    given_up = [t for t in stopped if t.state is TrialState.STOPPED]
    assert len(given_up) >= 5
    for trial in given_up:
        assert benches.x_of(trial.candidate) < 0.5
        assert trial.message.startswith("perplexity will be 1.")
        assert [s.stage for s in trial.stages] == ["compress"]
        assert trial.measurements == ()


def test_stopping_waits_until_the_study_knows_what_glimpses_are_worth(stopped: tuple[Trial, ...]) -> None:
    first = next(t.number for t in stopped if t.state is TrialState.STOPPED)
    assert sum(t.state is TrialState.COMPLETED for t in stopped[:first]) >= 19


def test_what_keeps_its_limit_is_never_stopped(stopped: tuple[Trial, ...]) -> None:
    kept = [t for t in stopped if benches.x_of(t.candidate) >= 0.5]
    assert all(t.state is TrialState.COMPLETED for t in kept)
    assert len(stopped) == 45


def test_nothing_is_stopped_where_the_study_says_none(store: Store) -> None:
    study = limited("none")
    coordinate(store, study, in_process(study), tiers=("glimpse",))
    assert {t.state for t in store.trials("toy")} == {TrialState.COMPLETED}


def test_a_study_resumed_goes_on_stopping_and_keeps_what_was_stopped(store: Store) -> None:
    study = limited()

    def interrupt(kind: EventKind, trial: Trial) -> None:
        if trial.number == 35:
            current.interrupt()

    current = coordinator(store, study, in_process(study), interrupt, ("glimpse",))
    assert current.run().state is StudyState.STOPPED
    before = {t.number: t.state for t in store.trials("toy")}
    coordinate(store, study, in_process(study), tiers=("glimpse",))
    after = {t.number: t.state for t in store.trials("toy")}
    assert len(after) == 45
    assert TrialState.STOPPED in before.values()
    assert all(after[number] is state for number, state in before.items() if state.is_final)
