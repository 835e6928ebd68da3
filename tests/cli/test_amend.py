"""`hpo amend`, and resuming elsewhere: a study that changes its question or its surroundings."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from tests.cli.conftest import STUDY, Hpo


def _status(hpo: Hpo) -> Any:
    return json.loads(hpo("status", "small", "--json").stdout)


def test_a_finished_study_is_given_another_objective_and_goes_on(launched: Hpo) -> None:
    said = launched("amend", "small", "--set", "objectives=[perplexity, weight_memory, kl_to_dense]").stdout
    assert said.startswith("study small has changed in: objectives; go on with: hpo resume small")
    assert _status(launched)["state"] == "stopped"
    told = launched("resume", "small").stderr
    assert "to be measured again on this device or for a new objective" in told
    front = json.loads(launched("front", "small", "--json").stdout)
    assert all("kl_to_dense" in json.dumps(member) for member in front["members"])
    assert len(front["members"]) > 0


def test_what_may_not_change_is_refused_by_name_and_nothing_changes(launched: Hpo, tmp_path: Path) -> None:
    before = sqlite3.connect(tmp_path / "hpo.db").execute("SELECT document FROM study").fetchall()
    refused = launched("amend", "small", "--set", "space.factorise.keep_ratio.low=0.5", code=2).stderr
    assert "'factorise.keep_ratio' has lost some of what it could be" in refused
    assert "no --set" not in refused
    assert "give a study file, or --set" in launched("amend", "small", code=2).stderr
    assert "already as that" in launched("amend", "small", "--set", "budget.trials=6", code=2).stderr
    assert sqlite3.connect(tmp_path / "hpo.db").execute("SELECT document FROM study").fetchall() == before


def test_a_changed_file_is_not_resumed_as_if_it_were_the_stored_study(
    launched: Hpo, study_file: Path
) -> None:
    study_file.write_text(STUDY.replace("high: 48", "high: 64"))
    refused = launched("launch", study_file, "--resume", "--trials", "7", code=2).stderr
    assert "is not what study 'small' asks: space differ" in refused
    assert "hpo amend small" in refused
    launched("amend", "small", study_file)
    launched("launch", study_file, "--resume", "--trials", "7")
    assert _status(launched)["counts"] == {"completed": 7}


def test_a_model_that_has_changed_is_refused_unless_drift_is_allowed(launched: Hpo, tmp_path: Path) -> None:
    store = sqlite3.connect(tmp_path / "hpo.db")
    (text,) = store.execute("SELECT environment FROM study").fetchone()
    then = {**json.loads(text), "transformers": "4.40.0"}
    with store:
        store.execute("UPDATE study SET environment = ?", (json.dumps(then),))
    refused = launched("resume", "small", "--trials", "7", code=1).stderr
    assert "the version of transformers: 4.40.0, now" in refused
    assert "--allow-drift" in refused
    told = launched("resume", "small", "--trials", "7", "--allow-drift").stderr
    assert "going on all the same: the version of transformers: 4.40.0" in told


def test_a_finished_study_may_be_resumed_to_be_measured_on_this_device(launched: Hpo) -> None:
    assert "is finished" in launched("resume", "small", code=2).stderr
    launched("resume", "small", "--remeasure")
    assert _status(launched)["state"] == "finished"
