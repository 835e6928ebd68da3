"""A study handed to a Ray cluster as a job, and the cluster's end of it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.errors import HpoError, UsageError
from hpo.run.detach import create, submit
from hpo.store.store import Store
from tests.cli.conftest import STUDY, Hpo, environment
from tests.run.test_launch import study

pytestmark = pytest.mark.ray


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def cluster(short_reference: Path) -> Iterator[str]:
    """Start a cluster of one node with a token, on ports of its own; return the address for jobs."""
    port, dashboard = free_port(), free_port()
    bin_directory = str(Path(sys.executable).parent)
    settings = {
        **environment(),
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    subprocess.run([f"{bin_directory}/ray", "get-auth-token", "--generate"], check=True, capture_output=True)
    directory = tempfile.mkdtemp(prefix="hpo-ray-")  # short: the paths of sockets may have 107 bytes
    head = subprocess.Popen(
        [
            f"{bin_directory}/ray",
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            f"--port={port}",
            "--node-ip-address=127.0.0.1",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}",
            "--include-dashboard=true",
            f"--temp-dir={directory}",
            "--disable-usage-stats",
            # Fixed by default, so two clusters on one machine would fight for them.
            f"--dashboard-agent-listen-port={free_port()}",
            f"--ray-client-server-port={free_port()}",
        ],
        env=settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(dashboard)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(directory, ignore_errors=True)


def _wait_for(port: int) -> None:
    for _ in range(240):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError("the cluster did not come up in two minutes")


def test_a_detached_study_runs_on_the_cluster_to_its_end(
    cluster: str, hpo: Hpo, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file.write_text(
        STUDY.replace("runner: in_process", "runner: ray").replace("trials: 6", "trials: 3")
    )
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    said = hpo("launch", study_file, "--detach", "--ray-address", cluster).stdout
    assert "submitted as Ray job" in said
    for _ in range(120):
        status = json.loads(hpo("status", "small", "--json").stdout)
        if status["state"] in ("finished", "failed"):
            break
        time.sleep(1)
    assert (status["state"], status["counts"]) == ("finished", {"completed": 3}), status
    with Store.open(f"{tmp_path}/hpo.db", read_only=True) as store:
        assert store.study("small").environment["profile"]


def test_a_password_never_reaches_the_jobs_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.run.detach import _environment

    assert _environment("postgresql://user:sesame@db.example/hpo") == {}
    assert _environment("postgresql://user@db.example/hpo")["HPO_STORAGE"].endswith("user@db.example/hpo")
    assert Path(_environment("study.db")["HPO_STORAGE"].removeprefix("sqlite:///")).is_absolute()


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(HpoError, match="no Ray cluster takes jobs") as caught:
        submit("small", f"sqlite:///{tmp_path}/x.db", f"http://127.0.0.1:{free_port()}")
    assert "ray start --head" in caught.value.hint


def test_only_a_ray_study_can_be_detached(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        with pytest.raises(UsageError, match="needs the Ray runner"):
            create(store, study())
        assert store.studies() == ()
