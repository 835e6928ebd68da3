"""Every command, as a user types it."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.cli.conftest import STUDY, Hpo


def test_launch_prints_trials_as_lines_and_the_front_at_the_end(hpo: Hpo, study_file: Path) -> None:
    done = hpo("launch", study_file)
    lines = done.stdout.splitlines()
    assert lines[0] == "trial 0 started on in-process: dense"
    assert sum(" completed in " in line for line in lines) == 6
    assert any(line.startswith("front of small: ") for line in lines)
    assert "energy (modelled)" in done.stdout
    assert "hpo export small --knee" in done.stderr
    assert "\x1b" not in done.stdout


def test_launch_with_json_prints_nothing_else_on_standard_output(hpo: Hpo, study_file: Path) -> None:
    found = json.loads(hpo("launch", study_file, "--trials", "3", "--json").stdout)
    assert (found["study"], found["state"], found["trials"]) == ("small", "finished", 3)
    assert all(m["measurements"] for m in found["members"])


def test_set_and_name_override_the_file(hpo: Hpo, study_file: Path) -> None:
    hpo("launch", study_file, "--set", "budget.trials=2", "--name", "other")
    (study,) = json.loads(hpo("status", "--json").stdout)
    assert (study["name"], study["budget_trials"], study["counts"]) == ("other", 2, {"completed": 2})


def test_status_front_and_show_read_the_store(launched: Hpo) -> None:
    assert "small" in launched("status").stdout
    page = launched("status", "small").stdout
    assert "study small: finished" in page
    assert "6 completed" in page
    assert "spent: 6 of 6 trials" in page
    status = json.loads(launched("status", "small", "--json").stdout)
    assert status["counts"] == {"completed": 6}
    assert (status["spent"]["trials"], status["spent"]["gpu_hours"]) == (6, None)
    assert status["spent"]["worker_hours"] > 0
    front = json.loads(launched("front", "small", "--json").stdout)
    assert front["knee"] in [m["number"] for m in front["members"]] == status["front"]
    assert launched("front", "small").stdout.count("± ") >= len(front["members"])
    shown = launched("show", "small", "3").stdout
    assert "svd(keep_ratio=0.5)" in shown
    assert "model.layers.0.self_attn.q_proj" in shown
    assert "rank 32" in shown
    assert len(json.loads(launched("show", "small", "1", "--json").stdout)["plan"]) == 14


def test_front_as_csv_and_under_limits(launched: Hpo) -> None:
    rows = list(csv.DictReader(io.StringIO(launched("front", "small", "--csv").stdout)))
    sizes = sorted(float(row["weight_memory"]) for row in rows)
    limit = f"weight_memory<={sizes[0]}"
    kept = json.loads(launched("front", "small", "--limit", limit, "--json").stdout)["members"]
    assert 1 <= len(kept) < len(rows)
    assert launched("front", "small", "--limit", "weight_memory=3", code=2).stderr.startswith(
        "error: --limit"
    )
    assert "unknown metric" in launched("front", "small", "--limit", "size<=3", code=2).stderr


def test_a_plateau_ends_a_study_with_its_figures_and_resume_may_drop_the_rule(
    hpo: Hpo, study_file: Path
) -> None:
    """Six anchors, one candidate to start with, five that are judged."""
    rule = ("--set", "search.plateau={gain_per_hour: 1e9, trials: 5}", "--set", "search.initial=1")
    done = hpo("launch", study_file, "--trials", "13", "--hours", "9", *rule)
    assert "study small is finished: the front grew by " in done.stderr
    page = hpo("status", "small").stdout
    assert "spent: 12 of 13 trials, " in page
    assert " of 9 h" in page
    assert "plateau rule: the front grew by " in page
    assert "the budget of trials is used: 13 of 13" in hpo("resume", "small", "--no-plateau").stderr


def test_resume_gives_a_finished_study_more_budget(launched: Hpo) -> None:
    refused = launched("resume", "small", code=2).stderr
    assert "is finished" in refused
    assert "--trials" in refused
    launched("resume", "small", "--trials", "8")
    assert json.loads(launched("status", "small", "--json").stdout)["counts"] == {"completed": 8}


def test_launching_twice_is_refused_unless_resume_is_said(launched: Hpo, study_file: Path) -> None:
    assert "hpo resume small" in launched("launch", study_file, code=2).stderr
    launched("launch", study_file, "--resume", "--trials", "7")
    assert json.loads(launched("status", "small", "--json").stdout)["counts"] == {"completed": 7}


def test_stop_and_cancel_say_so_when_nothing_runs(launched: Hpo) -> None:
    assert "no coordinator runs it" in launched("stop", "small").stdout
    assert "no coordinator runs it" in launched("cancel", "small").stdout


def test_a_candidate_of_ones_own_is_added_when_the_study_goes_on(launched: Hpo) -> None:
    said = launched("add", "small", "factorise=whitened_svd", "factorise.keep_ratio=0.5", "heal=none").stdout
    assert "asked for whitened_svd(keep_ratio=0.5)" in said
    assert "hpo resume small" in said
    launched("resume", "small", "--trials", "8")
    shown = json.loads(launched("show", "small", "6", "--json").stdout)
    assert shown["origin"] == "given:person"
    assert shown["candidate"]["factorise.keep_ratio"] == 0.5


def test_what_cannot_be_added_or_retried_is_refused_with_what_is_allowed(launched: Hpo) -> None:
    assert "unknown parameter 'factorize'" in launched("add", "small", "factorize=mpo", code=2).stderr
    assert "parameter=value" in launched("add", "small", "mpo", code=2).stderr
    assert "trial 0 of study small is completed" in launched("retry", "small", "0", code=2).stderr
    assert "is not there" in launched("retry", "small", "99", code=2).stderr
    assert "no trial has failed" in launched("retry", "small").stdout


def test_validate_plan_doctor_and_list_work_without_a_store(
    hpo: Hpo, study_file: Path, tmp_path: Path
) -> None:
    assert "small is valid" in hpo("validate", study_file).stdout
    plan = json.loads(hpo("plan", study_file, "--json").stdout)
    assert plan["rows"][0]["origin"] == "anchor:dense"
    assert plan["rows"][0]["exact"]["weight_memory"] == plan["dense_bytes"]
    assert "distinct plans" in hpo("plan", study_file).stdout
    assert "energy counter" in hpo("doctor").stdout
    for what, named in (
        ("methods", "whitened_svd"),
        ("spaces", "low_rank"),
        ("studies", "quickstart"),
        ("metrics", "perplexity"),
        ("samplers", "bayesian"),
    ):
        assert named in hpo("list", what).stdout
        assert named in [row["name"] for row in json.loads(hpo("list", what, "--json").stdout)]
    assert not list(tmp_path.glob("*.db"))


def test_every_method_is_listed_with_its_paper(hpo: Hpo) -> None:
    for row in json.loads(hpo("list", "methods", "--json").stdout):
        assert row["paper"].strip("()")
        assert row["summary"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("objectives:", "objectivs:", ["small.yaml:8", "objectivs", "did you mean 'objectives'"]),
        ("limit: {ratio_to_dense: 50}", "limt: 3", ["small.yaml:9", "limt", "did you mean 'limit'"]),
        ("metric: perplexity", "metric: perplexty", ["small.yaml:9", "did you mean 'perplexity'"]),
        ("trials: 6", "trials: 0", ["small.yaml:19", "budget.trials is 0"]),
        ("trials: 6", "trials: many", ["small.yaml:19", "many", "integer"]),
        (
            "budget: {trials: 6}\nrun: {",
            "budget: {gpu_hours: 1}\nrun: {device: cpu, ",
            ["small.yaml:19", "no GPU-hours", "run.device is 'cpu'"],
        ),
        ("sampler: sobol", "sampler: soboll", ["small.yaml:18", "did you mean 'sobol'"]),
        ("choices: [whitened_svd, mpo]", "choices: [whitened_svd, mpo, svdd]", ["small.yaml:13", "svd"]),
        ("low: 0.3, high: 0.9", "low: 0.9, high: 0.3", ["small.yaml:14", "low (0.9) is above high (0.3)"]),
        ("low: 4, high: 48", "low: 0, high: 48, log: true", ["small.yaml:15", "low above 0"]),
        ("when: {factorise: mpo}", "when: {factorize: mpo}", ["small.yaml:15", "did you mean 'factorise'"]),
        (
            "factorise.bond_dimension",
            "factorise.bonddimension",
            ["small.yaml:15", "did you mean 'bond_dimension'"],
        ),
        ("source: reference", "source: ./missing", ["small.yaml:4", "missing"]),
        (
            "{metric: weight_memory}",
            "{metric: weight_memory, limit: 5}",
            ["small.yaml:10", "no candidate keeps"],
        ),
        ("allow_modelled: true", "allow_modelled: maybe", ["small.yaml:11", "allow_modelled"]),
    ],
)
def test_a_wrong_file_is_named_with_its_line_and_nothing_is_written(
    hpo: Hpo, tmp_path: Path, old: str, new: str, said: list[str]
) -> None:
    assert old in STUDY
    (tmp_path / "small.yaml").write_text(STUDY.replace(old, new))
    error = hpo("launch", "small.yaml", code=2).stderr
    for words in said:
        assert words in error
    assert len([line for line in error.splitlines() if line.startswith("error:")]) == 1
    status = hpo("status", "--json", code=0 if (tmp_path / "hpo.db").exists() else 2)
    assert status.stdout.strip() in ("[]", "")


def test_unknown_studies_and_names_give_the_nearest_spelling(launched: Hpo) -> None:
    assert "did you mean 'quickstart'" in launched("launch", "quickstrt", code=2).stderr
    assert "did you mean 'small'" in launched("front", "smal", code=2).stderr
    assert "no trial 99" in launched("show", "small", "99", code=2).stderr


def test_an_unreachable_database_is_an_error_without_its_password(hpo: Hpo, tmp_path: Path) -> None:
    address = tmp_path / "address"
    address.write_text("postgresql://user:sesame@127.0.0.1:1/none")
    address.chmod(0o600)
    done = hpo("status", "--storage", f"file:{address}", code=1)
    assert "127.0.0.1" in done.stderr
    assert "sesame" not in done.stderr + done.stdout


def test_usage_errors_exit_with_two(hpo: Hpo) -> None:
    hpo("stauts", code=2)
    hpo("launch", code=2)
    hpo("show", "small", "seven", code=2)
