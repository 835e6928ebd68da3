"""A run told to programs: JSON records on standard error, a log file, figures for Prometheus."""

import json
import stat
from pathlib import Path

from tests.cli.conftest import Hpo


def test_a_run_in_json_has_nothing_else_on_standard_error(hpo: Hpo, study_file: Path, tmp_path: Path) -> None:
    options = ("--log-format", "json", "--log-file", "run.log", "--metrics-port", "0", "--trials", "3")
    done = hpo("launch", study_file, *options)
    assert done.stdout.startswith("front of small: ")
    rows = [json.loads(line) for line in done.stderr.splitlines()]
    assert any("figures for Prometheus: http://127.0.0.1:" in row["message"] for row in rows)
    assert any(row["message"].startswith("study small is finished") for row in rows)
    of_trial_1 = [row for row in rows if row.get("trial") == 1]
    assert [row["event"] for row in of_trial_1 if row["event"] != "stage"][-1] == "completed"
    assert {row["attempt"] for row in of_trial_1} == {1}
    file = tmp_path / "run.log"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [json.loads(line)["message"] for line in file.read_text().splitlines()] == [
        r["message"] for r in rows
    ]


def test_a_run_as_text_looks_as_ever_and_its_file_has_every_step(
    hpo: Hpo, study_file: Path, tmp_path: Path
) -> None:
    done = hpo("launch", study_file, "--trials", "2", "--log-file", "run.log")
    assert done.stdout.splitlines()[0] == "trial 0 started on in-process: dense"
    assert "INFO" not in done.stderr
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert sum(" completed: " in line for line in lines) == 2
    assert all("[study small" in line for line in lines if "hpo.coordinator" in line)


def test_what_cannot_be_told_is_refused_before_anything_starts(hpo: Hpo, study_file: Path) -> None:
    assert "the log format is 'xml'" in hpo("launch", study_file, "--log-format", "xml", code=2).stderr
    assert "cannot be written" in hpo("launch", study_file, "--log-file", "no/where.log", code=2).stderr
    refused = hpo("launch", study_file, "--metrics-port", "0", "--metrics-host", "203.0.113.9", code=2).stderr
    assert "metrics cannot be served at 203.0.113.9" in refused
    assert "store holds no study" in hpo("status").stdout
