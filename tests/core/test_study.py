"""Studies: what is valid survives its document, and its hash is stable."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.budget import Budget, Plateau
from hpo.errors import InvalidStudy, Path
from hpo.metric import METRICS
from hpo.study import DataSource, Search, Study, TextSource, space_from_mapping
from hpo.trial import Limit, Objective
from tests.core.documents import DOCUMENT, changed
from tests.core.spaces import spaces


def test_two_splits_of_a_dataset_and_two_parts_of_the_reference_text_are_not_the_same_text() -> None:
    DataSource(
        calibration=TextSource(dataset="a", split="train"), evaluation=TextSource(dataset="a", split="test")
    )
    DataSource(calibration=TextSource(reference=True), evaluation=TextSource(reference=True, tokens=64))


def test_bare_words_stand_for_their_mappings() -> None:
    short = Study.from_mapping(
        {
            **DOCUMENT,
            "model": "some/model",
            "data": {"calibration": "reference", "evaluation": {"reference": True}},
            "objectives": ["nll", {"metric": "energy", "limit": 3}],
        }
    )
    assert short.model.source == "some/model"
    assert short.data.calibration == short.data.evaluation == TextSource(reference=True)
    assert short.objectives == (Objective(metric="nll"), Objective(metric="energy", limit=Limit(value=3.0)))


def test_what_is_left_out_has_its_default() -> None:
    study = Study.from_mapping(DOCUMENT)
    assert study.search == Search(sampler="bayesian", seed=0, initial=8)
    assert study.budget == Budget(trials=10, hours=None)
    assert (study.run.runner, study.run.workers, study.run.device) == ("ray", 1, "auto")
    assert not study.model.trust_remote_code


def test_a_bare_scalar_in_a_space_is_a_parameter_of_one_value() -> None:
    space = space_from_mapping({"factorise": "svd", "factorise.keep_ratio": 0.5, "heal": False})
    assert space.size == 1
    assert space.from_unit([0.3, 0.3, 0.3]).values == {
        "factorise": "svd", "factorise.keep_ratio": 0.5, "heal": False,
    }  # fmt: skip


def test_a_study_survives_its_document_in_json_with_its_hash() -> None:
    study = Study.from_mapping(DOCUMENT)
    again = Study.from_mapping(json.loads(json.dumps(study.to_mapping())))
    assert again == study
    assert again.hash == study.hash
    assert again.to_mapping() == study.to_mapping()


budgets = st.one_of(
    st.builds(Budget, trials=st.integers(1, 10**6)),
    st.builds(Budget, hours=st.floats(1e-6, 1e6)),
    st.builds(Budget, trials=st.integers(1, 10**6), hours=st.floats(1e-6, 1e6)),
    st.builds(Budget, gpu_hours=st.floats(1e-6, 1e6), joules=st.floats(1e-6, 1e12)),
)
limits = (
    st.none()
    | st.builds(Limit, value=st.floats(-1e300, 1e300))
    | st.builds(Limit, ratio_to_dense=st.floats(1e-6, 1e6))
)


@settings(deadline=None, max_examples=50)
@given(
    space=spaces(),
    budget=budgets,
    metrics=st.lists(st.sampled_from(sorted(METRICS)), min_size=1, max_size=4, unique=True),
    limit=limits,
    question=st.text(max_size=20),
    seed=st.integers(0, 2**63),
    plateau=st.none() | st.builds(Plateau, gain_per_hour=st.floats(1e-9, 1e9), trials=st.integers(5, 99)),
)
def test_any_study_survives_its_document_in_json_with_its_hash(
    space: object,
    budget: Budget,
    metrics: list[str],
    limit: Limit | None,
    question: str,
    seed: int,
    plateau: Plateau | None,
) -> None:
    study = Study.model_validate(
        {
            **DOCUMENT,
            "space": space,
            "budget": budget,
            "objectives": [Objective(metric=name, limit=limit) for name in metrics],
            "question": question,
            "search": Search(seed=seed, plateau=plateau),
        }
    )
    again = Study.from_mapping(json.loads(json.dumps(study.to_mapping(), allow_nan=False)))
    assert again == study
    assert again.hash == study.hash


def test_the_hash_does_not_depend_on_the_order_of_keys_or_on_defaults_written_out() -> None:
    study = Study.from_mapping(DOCUMENT)
    backwards = dict(reversed(list(DOCUMENT.items())))
    assert Study.from_mapping(backwards).hash == study.hash
    assert Study.from_mapping({**DOCUMENT, "search": {"seed": 0, "sampler": "bayesian"}}).hash == study.hash


def test_the_hash_changes_only_with_the_document() -> None:
    """Stores and model cards keep it. One more field, or another default, is another document: log it."""
    expected = "4d8f0add1752dc5fca7b260b439c868f26d0ad88aa48eb85a76224cf47712f7c"
    assert Study.from_mapping(DOCUMENT).hash == expected


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "other"),
        (("budget", "trials"), 11),
        (("objectives", 0, "limit"), None),
        (("space", "factorise.keep_ratio", "high"), 0.8),
        (("search",), {"seed": 1}),
    ],
)
def test_another_question_has_another_hash(path: Path, value: object) -> None:
    assert Study.from_mapping(changed(path, value)).hash != Study.from_mapping(DOCUMENT).hash


def test_a_document_from_before_a_key_was_known_is_the_same_study() -> None:
    document = Study.from_mapping(DOCUMENT).to_mapping()
    for part, key in (("budget", "gpu_hours"), ("budget", "joules"), ("search", "plateau")):
        assert document[part].pop(key) is None
    assert Study.from_mapping(document) == Study.from_mapping(DOCUMENT)


def test_gpu_hours_on_a_processor_are_refused_with_what_to_give_instead() -> None:
    document = {**DOCUMENT, "budget": {"gpu_hours": 1}, "run": {"device": "cpu"}}
    with pytest.raises(InvalidStudy, match=r"no GPU-hours .* run.device is 'cpu'") as caught:
        Study.from_mapping(document)
    assert caught.value.where == ("budget", "gpu_hours")
    assert "budget.hours" in caught.value.hint
    assert Study.from_mapping({**document, "run": {"device": "auto"}}).budget.gpu_hours == 1


def test_joules_on_a_shared_gpu_are_refused() -> None:
    document: dict[str, object] = {**DOCUMENT, "budget": {"joules": 1}, "run": {"gpus_per_worker": 0.5}}
    with pytest.raises(InvalidStudy, match=r"joules cannot be counted .* on a shared GPU") as caught:
        Study.from_mapping(document)
    assert caught.value.where == ("budget", "joules")
    document["run"] = {"gpus_per_worker": 0.5, "device": "cpu"}
    assert Study.from_mapping(document).budget.joules == 1


def test_a_budget_says_all_that_it_has() -> None:
    assert str(Budget(trials=60, hours=2, gpu_hours=0.5, joules=3e6)) == (
        "60 trials or 2 h or 0.5 GPU-hours or 3,000,000 J"
    )


def test_a_study_cannot_bechanged() -> None:
    study = Study.from_mapping(DOCUMENT)
    with pytest.raises(Exception, match="frozen"):
        study.name = "other"
