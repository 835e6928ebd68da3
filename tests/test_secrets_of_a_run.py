"""A whole study with known secrets around it: afterwards they are found nowhere.

Looked through are what the commands print, the log file, every column of every table, the report, the
exported model with its card, the cache, and all that Ray leaves in its session directory.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import MetaData, create_engine, select

from hpo.store.url import parse
from tests.cli.conftest import STUDY, command, environment

pytestmark = [pytest.mark.postgres, pytest.mark.ray]

PASSWORD = "pw-Zx81-of-the-store"
TOKENS = {"HF_TOKEN": "hf_KnownTokenOfTheHub0123456789", "RAY_AUTH_TOKEN": "known-token-of-ray-0123456789abc"}
SECRETS = (PASSWORD, *TOKENS.values())


class Run:
    """Runs commands in a directory of their own and keeps what they print."""

    def __init__(self, place: Path, url: str, ray: Path) -> None:
        self.place, self.url, self.ray, self.said = place, url, ray, ""
        self._environment: Mapping[str, str] = {
            **environment(),
            **TOKENS,
            "HPO_STORAGE": url,
            "HOME": str(place),
            "RAY_TMPDIR": str(ray),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __call__(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            command(*arguments),
            cwd=self.place,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        self.said += done.stdout + done.stderr
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def study(self, name: str, runner: str, trials: int) -> Path:
        text = STUDY.replace("name: small", f"name: {name}").replace("trials: 6", f"trials: {trials}")
        path = self.place / f"{name}.yaml"
        path.write_text(text.replace("runner: in_process", f"runner: {runner}"))
        return path


@pytest.fixture
def run(tmp_path: Path, postgres_url: str, short_reference: Path) -> Iterator[Run]:
    parts = urlsplit(postgres_url)
    address = parts._replace(netloc=f"{parts.username}:{PASSWORD}@{parts.hostname or ''}").geturl()
    ray = Path(tempfile.mkdtemp(prefix="hpo-"))  # short: the paths of sockets may have 107 bytes
    try:
        yield Run(tmp_path, address, ray)
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def _found_in_files(*places: Path) -> list[str]:
    found = []
    for path in (path for place in places for path in place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [f"{path}: {secret[:8]}" for secret in SECRETS if secret.encode() in content]
    return found


def _found_in_store(url: str) -> list[str]:
    engine, tables = create_engine(parse(url)), MetaData()
    try:
        tables.reflect(engine)
        assert {"study", "trial", "event"} <= set(tables.tables)
        with engine.connect() as connection:
            return [
                f"{table.name}.{column}"
                for table in tables.tables.values()
                for row in connection.execute(select(table)).mappings()
                for column, value in row.items()
                if any(secret in str(value) for secret in SECRETS)
            ]
    finally:
        engine.dispose()


def test_a_run_in_this_process_leaves_no_secret_anywhere(run: Run, short_reference: Path) -> None:
    run("launch", run.study("here", "in_process", 3), "--log-format", "json", "--log-file", "here.log")
    run("status", "here", "--json")
    run("logs", "here", "--json")
    run("report", "here", "--out", "here.html")
    run("export", "here", "1", "--out", "model")
    run("doctor")
    assert (run.place / "here.log").stat().st_size > 0
    assert "here" in run.said
    assert [secret for secret in SECRETS if secret in run.said] == []
    assert _found_in_store(run.url) == []
    assert _found_in_files(run.place, short_reference) == []


def test_a_run_on_ray_leaves_no_secret_in_its_session_either(run: Run) -> None:
    run("launch", run.study("there", "ray", 2), "--log-file", "there.log")
    assert list(run.ray.rglob("*.out")), "the session of Ray was kept elsewhere"
    assert [secret for secret in SECRETS if secret in run.said] == []
    assert _found_in_store(run.url) == []
    assert _found_in_files(run.place, run.ray) == []


def test_the_search_finds_a_secret_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "log").write_bytes(b"\x00\xff" + PASSWORD.encode() + b"\x00")
    assert _found_in_files(tmp_path) == [f"{tmp_path}/deep/log: {PASSWORD[:8]}"]
