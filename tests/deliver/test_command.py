"""`hpo export`: parse, choose, write, and an exit code that can be trusted."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hpo.cli.delivering import export
from hpo.deliver import verify as verifying
from hpo.deliver.form import Form
from hpo.errors import HpoError, NotFound, UsageError
from hpo.run.launch import Watcher, launch
from hpo.store.store import Store
from tests.deliver.building import names, study
from tests.deliver.conftest import Home

_app = typer.Typer()
_app.command("export")(export)
_app.command("other")(lambda: None)  # two commands, or typer drops the name


def _run(*arguments: str) -> tuple[int, str]:
    """Return exit code and output; our own errors pass through."""
    result = CliRunner().invoke(_app, ["export", *arguments], standalone_mode=False)
    if isinstance(result.exception, HpoError):
        raise result.exception
    assert result.exception is None, result.exception
    return result.return_value, result.stdout


def test_a_launched_study_comes_home_verified(home: Home, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    with Store.open(url) as store:
        silent = Watcher(lambda text: None, lambda kind, trial: None)
        launch(store, study("own", str(home.root / "gpt2"), budget={"trials": 3}), silent)
        perplexity = store.trial("own", 1).value("perplexity")
    target = tmp_path / "new"
    code, printed = _run("own", "1", "--out", str(target), "--verify", "--storage", url, "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["verification"]["passed"]
    assert found["verification"]["perplexity"] == pytest.approx(perplexity, rel=1e-5)
    assert found["nll"]["rebuilt"] == pytest.approx(found["nll"]["trial"], rel=1e-6)
    assert set(found["files"]) == names(target)
    assert found["bytes"] == (target / "model.safetensors").stat().st_size
    assert json.loads((target / "verification.json").read_text()) == found["verification"]
    assert "verification.json" in (target / "SHA256SUMS").read_text()
    assert "**passed**" in (target / "README.md").read_text()


def test_a_failed_verification_is_exit_code_1_and_the_directory_stays(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "_SCRIPT", tmp_path / "nowhere.py")
    code, printed = _run("tiny", "1", "--out", str(tmp_path / "new"), "--verify", "--storage", home.url)
    assert code == 1
    assert "verification FAILED" in printed
    stored = json.loads((tmp_path / "new" / "verification.json").read_text())
    assert not stored["passed"]
    assert "nowhere.py" in stored["checks"][-1]["found"]
    assert "**FAILED**" in (tmp_path / "new" / "README.md").read_text()


def test_the_dense_form_is_written_by_limit(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "new"
    choice = ["--limit", "weight_memory<=1e9", "--form", "dense"]
    code, printed = _run("tiny", *choice, "--out", str(target), "--storage", home.url)
    assert code == 0
    assert f'AutoModelForCausalLM.from_pretrained("{target}")' in printed
    assert "modeling_compressed.py" not in names(target)


_LIMIT = ["--limit", "nll<=9"]


@pytest.mark.parametrize("choice", [[], ["1", "--knee"], ["1", *_LIMIT], ["--knee", *_LIMIT]])
def test_exactly_one_way_to_choose_is_wanted(home: Home, tmp_path: Path, choice: list[str]) -> None:
    with pytest.raises(UsageError, match="of TRIAL, --knee and --limit is given"):
        _run("tiny", *choice, "--out", str(tmp_path / "new"), "--storage", home.url)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nobody", "1"], NotFound),
        (["tiny", "77"], NotFound),
        (["tiny", "5"], UsageError),
        (["tiny", "--limit", "weight_memory<=10"], NotFound),
        (["tiny", "--limit", "weight_memory"], UsageError),
    ],
)
def test_what_cannot_be_chosen_leaves_nothing(
    home: Home, tmp_path: Path, arguments: list[str], error: type[HpoError]
) -> None:
    with pytest.raises(error) as caught:
        _run(*arguments, "--out", str(tmp_path / "new"), "--storage", home.url)
    assert caught.value.exit_code == 2
    assert names(tmp_path) == set()


def test_an_existing_directory_is_refused_before_the_store_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        _run("tiny", "1", "--out", str(tmp_path), "--storage", "sqlite:////nowhere/at/all.db")


def test_an_unknown_form_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        _app, ["export", "tiny", "1", "--out", str(tmp_path / "new"), "--form", "thin"]
    )
    assert result.exit_code == 2
    assert all(str(form) in result.output for form in Form)
