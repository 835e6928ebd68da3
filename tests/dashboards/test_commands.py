import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dashboards import commands

RUNNER = CliRunner()


def cli() -> typer.Typer:
    """Join the two commands as the command line does."""
    app = typer.Typer()
    for point in entry_points(group="compression_hpo.command"):
        app.command(point.name)(point.load())
    return app


def test_both_commands_join_by_entry_point() -> None:
    assert {point.name for point in entry_points(group="compression_hpo.command")} >= {"dashboard", "report"}


@pytest.mark.parametrize("name", ["dashboard", "report"])
def test_help_has_an_example_and_the_variable_of_the_store(name: str) -> None:
    shown = RUNNER.invoke(cli(), [name, "--help"]).output
    assert f"Example: hpo {name}" in shown
    assert "HPO_STORAGE" in shown


def test_importing_the_commands_loads_neither_dash_nor_plotly() -> None:
    code = "import sys, dashboards.commands; print({'dash', 'plotly', 'torch'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"


def test_report_writes_the_file_it_names(store_url: str, tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    done = RUNNER.invoke(cli(), ["report", "halfway", "--out", str(out), "--storage", store_url])
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.output
    assert out.exists()


def test_report_writes_the_trials_to_files_named_by_their_endings(store_url: str, tmp_path: Path) -> None:
    places = [tmp_path / "t.csv", tmp_path / "t.json"]
    given = ["report", "halfway", "--storage", store_url]
    done = RUNNER.invoke(cli(), [*given, "--data", str(places[0]), "--data", str(places[1])])
    assert done.exit_code == 0, done.output
    assert [f"wrote {place}" in done.output for place in places] == [True, True]
    assert sorted(tmp_path.iterdir()) == places


def test_dashboard_passes_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def serve(storage: str, host: str, port: int, **options: Any) -> None:
        told.update(storage=storage, host=host, port=port, remote=options["allow_remote"])

    monkeypatch.setattr("dashboards.serve.serve", serve)
    given = ["dashboard", "--port", "9000", "--host", "0.0.0.0", "--allow-remote"]
    done = RUNNER.invoke(cli(), given, env={"HPO_STORAGE": "sqlite:///x.db"})
    assert done.exit_code == 0, done.output
    assert told == {"storage": "sqlite:///x.db", "host": "0.0.0.0", "port": 9000, "remote": True}


def test_the_host_is_this_machine_unless_told_otherwise() -> None:
    assert commands.dashboard.__defaults__ == (None, "127.0.0.1", 8050, False, False)
