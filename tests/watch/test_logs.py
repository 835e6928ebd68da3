"""Log records: the ids they carry, the two formats, the file, and that no secret gets through."""

import io
import json
import logging
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.errors import UsageError
from hpo.run.narrated import Narrated
from hpo.store.store import Store
from hpo.watch import logs
from hpo.watch.logs import LogFormat, about, configure, format_of, identify
from hpo.watch.study_log import StudyLog
from tests.run import benches
from tests.run.conftest import coordinate, in_process


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logs, "_process", {})
    yield
    logs.reset()


def _rows(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_carries_the_ids_of_its_process_and_its_call() -> None:
    out = io.StringIO()
    configure(LogFormat.JSON, stream=out)
    identify(study="toy", worker="worker-1")
    with about(trial=3, attempt=2), about(stage="heal"):
        logging.getLogger("hpo.compress").warning("slow: %d s", 5)
    logging.getLogger("hpo.compress").warning("after")
    first, second = _rows(out)
    assert {k: v for k, v in first.items() if k != "time"} == {
        "level": "warning",
        "logger": "hpo.compress",
        "study": "toy",
        "trial": 3,
        "attempt": 2,
        "worker": "worker-1",
        "stage": "heal",
        "message": "slow: 5 s",
    }
    assert {k for k in second if k in logs.IDS} == {"study", "worker"}


def test_as_text_only_warnings_reach_the_terminal_and_not_what_is_shown_there_anyway(tmp_path: Path) -> None:
    out, file = io.StringIO(), tmp_path / "run.log"
    configure(LogFormat.TEXT, file, stream=out)
    log = logging.getLogger("hpo.x")
    log.info("begun")
    log.warning("trouble")
    log.warning("trial failed", extra={"event": "failed", "trial": 4})
    assert [line.partition(" ")[2] for line in out.getvalue().splitlines()] == ["WARNING hpo.x trouble"]
    assert [line.partition(" ")[2] for line in file.read_text().splitlines()] == [
        "INFO hpo.x begun",
        "WARNING hpo.x trouble",
        "WARNING hpo.x [trial 4] failed: trial failed",
    ]


def test_the_file_is_its_owners_alone_is_appended_to_and_comes_back_when_rotated(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    file.write_text("before\n")
    file.unlink()
    configure(LogFormat.TEXT, file, stream=io.StringIO())
    logging.getLogger("hpo.x").warning("one")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.rename(tmp_path / "run.log.1")
    logging.getLogger("hpo.x").warning("two")
    assert file.read_text().endswith(" two\n")
    configure(LogFormat.TEXT, file, stream=io.StringIO())
    logging.getLogger("hpo.x").warning("three")
    assert len(file.read_text().splitlines()) == 2


def test_a_file_that_cannot_be_written_and_an_unknown_format_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        configure(LogFormat.TEXT, tmp_path / "nowhere" / "run.log")
    monkeypatch.setenv("HPO_LOG_FORMAT", "xml")
    with pytest.raises(UsageError, match="the log format is 'xml'"):
        format_of(None)
    assert format_of("json") is LogFormat.JSON


def test_no_secret_reaches_any_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token-of-ray-42")
    out, file = io.StringIO(), tmp_path / "run.log"
    configure(LogFormat.JSON, file, ["postgresql://ann:pass-word-42@db/x"], out)
    log = logging.getLogger("hpo.store")
    log.warning("cannot reach %s with %s", "postgresql://ann:pass-word-42@db/x", {"t": "token-of-ray-42"})
    try:
        raise ValueError("pass-word-42")
    except ValueError:
        log.exception("it said token-of-ray-42")
    told = out.getvalue() + file.read_text()
    assert "pass-word-42" not in told
    assert "token-of-ray-42" not in told
    assert "ValueError: ***" in told


def test_an_error_that_nobody_catches_is_told_without_secrets() -> None:
    code = (
        "from hpo.watch.logs import configure\n"
        "configure(addresses=['postgresql://ann:pass-word-42@db/x'])\n"
        "raise RuntimeError('it is pass-word-42')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pass-word-42" not in done.stderr
    assert "RuntimeError: it is ***" in done.stderr


def test_a_line_of_text_is_one_line_whatever_it_quotes() -> None:
    out = io.StringIO()
    configure(LogFormat.TEXT, stream=out)
    logging.getLogger("hpo.x").warning("one\ntwo \x1b[2J")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


def test_a_study_is_logged_step_by_step_with_its_trials_and_their_workers(tmp_path: Path) -> None:
    out, study = io.StringIO(), benches.study(3)
    configure(LogFormat.JSON, stream=out)
    log = StudyLog(study)
    log.say("starting")
    with Store.open(f"sqlite:///{tmp_path}/study.db") as store:
        coordinate(store, study, in_process(study, _2="nan"), log.hear)
    rows = _rows(out)
    assert {row["study"] for row in rows} == {"toy"}
    of_trial_2 = [row for row in rows if row.get("trial") == 2]
    told = [(row["event"], row["level"], row.get("stage", "")) for row in of_trial_2]
    assert told == [
        ("asked", "info", ""),
        ("started", "info", ""),
        ("stage", "info", "compress"),
        ("stage_done", "info", ""),
        ("stage", "warning", "measure"),
        ("failed", "warning", ""),
    ]
    assert {row["attempt"] for row in of_trial_2} == {1}
    assert of_trial_2[-1]["message"] == "not a number: told to nan"
    assert of_trial_2[1]["worker"] == "in-process"


def test_a_narrated_bench_does_what_the_bench_does() -> None:
    bench = benches.ToyBench({})
    assert Narrated(bench).setup() == bench.setup()
    assert Narrated(bench).waiting() == bench.waiting() == []


def test_a_worker_knows_its_study_and_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_LOG_FORMAT", "json")
    assert logs.worker_environment("worker-7") == {"HPO_WORKER": "worker-7", "HPO_LOG_FORMAT": "json"}
    monkeypatch.setenv("HPO_WORKER", "worker-7")
    logs.configure_worker("toy")
    record = logging.LogRecord("hpo", logging.INFO, "", 1, "x", (), None)
    assert logs.ids_of(record) == {"study": "toy", "worker": "worker-7"}
