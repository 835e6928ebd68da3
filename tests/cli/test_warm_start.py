"""``hpo launch --warm-start``, and what is said of it."""

import time
from collections.abc import Mapping
from pathlib import Path

from hpo.store.store import Store
from hpo.study_file import read_study
from tests.cli.conftest import Hpo


def _stored(study_file: Path, environment: Mapping[str, str]) -> None:
    with Store.open(f"sqlite:///{study_file.with_name('hpo.db')}") as store:
        store.create_study(read_study(str(study_file)), environment, time.time())


def test_a_study_that_cannot_be_learnt_from_is_refused(hpo: Hpo, study_file: Path) -> None:
    _stored(study_file, {})
    empty = hpo("launch", study_file, "--name", "second", "--warm-start", "small", code=2).stderr
    assert "no warm start from 'small': its dense model has no completed trial" in empty
    wrong = hpo("launch", study_file, "--name", "second", "--warm-start", "smal", code=2).stderr
    assert "did you mean 'small'" in wrong
    assert "second" not in hpo("status").stdout


def test_status_says_what_is_learnt_from(hpo: Hpo, study_file: Path) -> None:
    _stored(study_file, {"warm_start": "'first': 41 trials of the model reference, perplexity"})
    assert "warm start from 'first': 41 trials of the model reference" in hpo("status", "small").stdout
