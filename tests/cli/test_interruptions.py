"""Ctrl-C, stop from elsewhere, and kill -9 of a running launch; afterwards `hpo resume` goes on."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpo.errors import NotFound
from hpo.store.store import Store
from hpo.trial import TrialState
from tests.cli.conftest import STUDY, Hpo, command, environment

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, short_reference: Path) -> Iterator[Start]:
    """Start the command in the background."""
    (tmp_path / "small.yaml").write_text(STUDY.replace("high: 4, when", "high: 40, when"))
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command(*arguments),
            cwd=tmp_path,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def until_completed(directory: Path, count: int) -> None:
    """Wait until so many trials are completed and another is running."""
    for _ in range(1200):
        try:
            with Store.open(f"{directory}/hpo.db", read_only=True) as store:
                states = [t.state for t in store.trials("small")] if store.studies() else []
        except NotFound:
            states = []
        if states.count(TrialState.COMPLETED) >= count and TrialState.RUNNING in states:
            return
        time.sleep(0.1)
    raise AssertionError(f"{count} trials were not completed in two minutes")


def counts(hpo: Hpo) -> dict[str, int]:
    found: dict[str, int] = json.loads(hpo("status", "small", "--json").stdout)["counts"]
    return found


def test_a_killed_launch_loses_nothing_and_resume_meets_the_budget(
    start: Start, hpo: Hpo, tmp_path: Path
) -> None:
    launch = start("launch", "small.yaml", "--trials", "9")
    until_completed(tmp_path, 3)
    os.kill(launch.pid, signal.SIGKILL)
    launch.communicate()
    with Store.open(f"{tmp_path}/hpo.db", read_only=True) as store:
        before = [t for t in store.trials("small") if t.state is TrialState.COMPLETED]
    hpo("resume", "small")  # at once: the lease of a dead process of this machine need not run out
    with Store.open(f"{tmp_path}/hpo.db", read_only=True) as store:
        after = store.trials("small")
    assert [t.state for t in after] == [TrialState.COMPLETED] * 9
    assert [after[t.number] for t in before] == before


def test_ctrl_c_drains_and_exits_with_130(start: Start, hpo: Hpo, tmp_path: Path) -> None:
    launch = start("launch", "small.yaml", "--trials", "500")
    until_completed(tmp_path, 1)
    launch.send_signal(signal.SIGINT)
    _, errors = launch.communicate(timeout=60)
    assert launch.returncode == 130
    assert "running trials finish first" in errors
    assert set(counts(hpo)) == {"completed"}


def test_stop_from_another_terminal_drains_and_exits_with_0(start: Start, hpo: Hpo, tmp_path: Path) -> None:
    launch = start("launch", "small.yaml", "--trials", "500")
    until_completed(tmp_path, 1)
    assert "asked" in hpo("stop", "small").stdout
    assert launch.wait(timeout=60) == 0
    assert set(counts(hpo)) == {"completed"}
    assert json.loads(hpo("status", "small", "--json").stdout)["state"] == "stopped"


def test_cancel_puts_the_running_trial_back(start: Start, hpo: Hpo, tmp_path: Path) -> None:
    launch = start("launch", "small.yaml", "--trials", "500")
    until_completed(tmp_path, 1)
    hpo("cancel", "small")
    assert launch.wait(timeout=60) == 0
    left = counts(hpo)
    assert "running" not in left
    assert left["completed"] >= 1


def test_a_second_coordinator_is_refused(start: Start, hpo: Hpo, tmp_path: Path) -> None:
    start("launch", "small.yaml", "--trials", "500")
    until_completed(tmp_path, 1)
    assert "is being run by" in hpo("resume", "small", code=1).stderr
