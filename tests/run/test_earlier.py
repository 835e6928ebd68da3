"""Which earlier studies a search begins from."""

from pathlib import Path

import pytest

from hpo.errors import HpoError, InvalidStudy
from hpo.run.earlier import Pin, check_named, facts, warm_start
from hpo.run.launch import Watcher, launch, resume
from hpo.run.more import More
from hpo.search.warm_start import WarmStart
from hpo.store.store import Store
from hpo.study import Study
from tests.run import benches
from tests.run.conftest import coordinate, in_process
from tests.run.test_launch import SILENT, SPACE
from tests.run.test_launch import study as small


def _finished(store: Store, name: str = "first", trials: int = 12, **changes: object) -> Study:
    study = benches.study(trials, name=name, **changes)
    coordinate(store, study, in_process(study))
    return study


def _second(*names: str, trials: int = 12) -> Study:
    search = {"sampler": "sobol", "initial": 4, "warm_start": list(names)}
    return benches.study(trials, name="second", search=search)


def _begun(store: Store, study: Study, environment: dict[str, str] | None = None) -> WarmStart:
    found = warm_start(store, study, benches.problem(study), environment or {})
    assert found is not None
    return found


def test_a_study_that_names_no_other_begins_cold(store: Store) -> None:
    study = benches.study()
    assert warm_start(store, study, benches.problem(study), {}) is None
    assert facts(store, None) == {}


def test_what_was_used_is_said_in_a_line(store: Store) -> None:
    first = benches.study(12, name="first")
    coordinate(store, first, in_process(first, _4="nan"))
    warm = _begun(store, _second("first"))
    said = facts(store, warm)["warm_start"]
    assert said == "'first': 11 trials of the model reference, perplexity, 1 of 1 parameters in common"


def test_a_resumed_search_learns_from_the_very_trials_it_began_with(store: Store) -> None:
    first = _finished(store, trials=10)
    before = _begun(store, _second("first"))
    pinned = facts(store, before)
    grown = first.model_copy(update={"budget": first.budget.model_copy(update={"trials": 14})})
    coordinate(store, grown, in_process(grown))
    assert len(_begun(store, _second("first")).earlier[0].trials) == 14
    assert _begun(store, _second("first"), pinned).earlier[0].trials == before.earlier[0].trials


def test_a_search_whose_earlier_study_is_gone_does_not_go_on_otherwise(store: Store) -> None:
    _finished(store)
    pinned = facts(store, _begun(store, _second("first")))
    store.delete_study("first")
    with pytest.raises(HpoError, match="began from 12 trials of 'first', which are no longer in"):
        _begun(store, _second("first"), pinned)
    _finished(store, search={"sampler": "sobol", "initial": 4, "seed": 7})
    with pytest.raises(HpoError, match="as they were"):
        _begun(store, _second("first"), pinned)


def test_a_pin_survives_its_text() -> None:
    pin = Pin("first", (0, 1, 2, 5, 7, 8), "0123456789abcdef")
    assert str(pin) == "first:0-2,5,7-8:0123456789abcdef"
    assert Pin.parse(str(pin)) == pin


def test_an_unknown_study_is_refused_and_those_that_exist_are_named(store: Store) -> None:
    _finished(store)
    with pytest.raises(InvalidStudy, match="frist") as caught:
        check_named(store, _second("frist"))
    assert "first" in caught.value.hint
    assert caught.value.where == ("search", "warm_start", 0)


def test_a_study_cannot_begin_from_itself(store: Store) -> None:
    with pytest.raises(InvalidStudy, match="no warm start from 'second': it is this study itself"):
        check_named(store, _second("second"))


def test_a_study_of_too_few_trials_is_refused(store: Store) -> None:
    _finished(store, trials=5)
    with pytest.raises(InvalidStudy, match="it has 5 completed trials, and at least 8 are needed"):
        check_named(store, _second("first"))


def test_a_study_whose_dense_model_failed_is_refused(store: Store) -> None:
    study = benches.study(12, name="first")
    coordinate(store, study, in_process(study, _0="nan"))
    with pytest.raises(InvalidStudy, match="its dense model has no completed trial"):
        check_named(store, _second("first"))


def test_a_study_without_a_common_metric_or_parameter_is_refused(store: Store) -> None:
    _finished(store)
    for change, message in (
        ({"objectives": ["nll", "weight_memory"]}, "it has measured none of nll; it knows perplexity"),
        ({"space": {"y": {"type": "float", "low": 0.0, "high": 1.0}}}, "they are x"),
    ):
        study = benches.study(12, name="second", search={"warm_start": ["first"]}, **change)
        with pytest.raises(InvalidStudy, match=message) as caught:
            _begun(store, study)
        assert caught.value.where == ("search", "warm_start", 0)


def test_the_same_study_cannot_be_named_twice_nor_by_what_is_no_name() -> None:
    with pytest.raises(InvalidStudy, match="first is named twice"):
        _second("first", "first")
    with pytest.raises(InvalidStudy, match="the name is 'a/b'"):
        _second("a/b")


def test_a_coordinator_asks_its_sampler_with_the_warm_start(store: Store) -> None:
    _finished(store)
    cold, warm = benches.study(10, name="cold"), _second("first", trials=10)
    coordinate(store, cold, in_process(cold))
    coordinate(store, warm, in_process(warm), warm=_begun(store, warm))
    asked = [[t.candidate for t in store.trials(name)] for name in ("cold", "second")]
    assert asked[0][:3] == asked[1][:3]  # the anchors
    assert asked[0][3:] != asked[1][3:]


def test_a_study_begins_from_another_says_so_and_resumes_as_it_would_have_gone_on(
    short_reference: Path, store: Store
) -> None:
    said: list[str] = []
    loud = Watcher(said.append, lambda kind, trial: None)
    search = {"sampler": "sobol", "initial": 4, "warm_start": ["first"]}
    space = {name: parameter for name, parameter in sorted(SPACE.items()) if "heal" not in name}
    launch(store, small(8, name="first", space=space), SILENT)
    launch(store, small(8, name="whole", space=space, search=search), loud)
    line = "'first': 8 trials of the model reference, perplexity, 3 of 3 parameters in common"
    assert f"warm start from {line}" in said
    assert store.study("whole").environment["warm_start"] == line
    launch(store, small(6, name="part", space=space, search=search), SILENT)
    resume(store, "first", SILENT, more=More(trials=10))
    resume(store, "part", SILENT, more=More(trials=8))
    whole, part, first = ([t.candidate for t in store.trials(n)] for n in ("whole", "part", "first"))
    assert part == whole
    assert part != first[:8]


def test_a_launch_from_an_unusable_study_writes_nothing(short_reference: Path, store: Store) -> None:
    with pytest.raises(InvalidStudy, match="first"):
        launch(store, small(name="second", search={"warm_start": ["first"]}), SILENT)
    assert store.studies() == ()
