"""What may change under a study without a word, and what may not."""

import pytest

from hpo.errors import HpoError
from hpo.run.drift import drifts, refuse

THEN = {
    "profile": "aa",
    "evaluation": "bb",
    "torch": "2.13.0+cpu",
    "transformers": "5.23.1",
    "compression-hpo": "0.1.0",
    "device": "cpu: one",
    "python": "3.11.7",
}


def test_the_same_is_no_drift() -> None:
    assert drifts(THEN, THEN) == []


def test_another_device_machine_or_patch_release_is_no_drift() -> None:
    now = {**THEN, "device": "cuda: H200", "python": "3.12.1", "torch": "2.13.1", "transformers": "5.23.4"}
    assert drifts(THEN, now) == []


@pytest.mark.parametrize(
    ("key", "now", "words"),
    [
        ("profile", "cc", "the model or its calibration text: aa, now cc"),
        ("evaluation", "cc", "the evaluation text: bb, now cc"),
        ("torch", "2.14.0", "the version of torch: 2.13.0"),
        ("transformers", "6.0.0", "the version of transformers: 5.23.1, now 6.0.0"),
        ("compression-hpo", "0.2.0", "the version of compression-hpo: 0.1.0, now 0.2.0"),
    ],
)
def test_what_the_figures_depend_on_is_drift_and_is_named(key: str, now: str, words: str) -> None:
    found = drifts(THEN, {**THEN, key: now})
    assert [drift.key for drift in found] == [key]
    with pytest.raises(HpoError, match=words) as caught:
        refuse("quick", found)
    assert "--allow-drift" in caught.value.hint


def test_what_an_older_version_did_not_record_is_no_drift() -> None:
    assert drifts({}, THEN) == []
    assert drifts({key: value for key, value in THEN.items() if key != "evaluation"}, THEN) == []


def test_nothing_is_refused_without_drift() -> None:
    refuse("quick", [])
