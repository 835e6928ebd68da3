"""`hpo logs` and `hpo status --watch`: as a user types them, and as a pipe reads them."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.cli.logs import _time
from hpo.cli.watching import watch_study
from hpo.errors import UsageError
from hpo.store.store import Store
from hpo.store.values import Lease, StudyState
from tests.cli.conftest import Hpo
from tests.run import benches
from tests.run.conftest import coordinate, in_process


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/hpo.db") as opened:
        yield opened


def _finished(store: Store) -> None:
    study = benches.study(3)
    coordinate(store, study, in_process(study))


def test_logs_prints_the_whole_study_or_one_trial(hpo: Hpo, store: Store) -> None:
    _finished(store)
    lines = hpo("logs", "toy").stdout.splitlines()
    assert len(lines) == len(store.events("toy"))
    of_one = hpo("logs", "toy", "1").stdout.splitlines()
    assert of_one
    assert all(" trial 1 " in line for line in of_one)
    assert hpo("logs", "toy", "--tail", "2").stdout.splitlines() == lines[-2:]
    assert hpo("logs", "toy", "--since", "2999-01-01").stdout == ""
    assert hpo("logs", "toy", "--since", "1h", "--tail", "1").stdout.splitlines() == lines[-1:]


def test_logs_as_json_has_one_object_a_line(hpo: Hpo, store: Store) -> None:
    _finished(store)
    rows = [json.loads(line) for line in hpo("logs", "toy", "1", "--json").stdout.splitlines()]
    assert [row["event"] for row in rows] == ["asked", "started", "stage_done", "stage_done", "completed"]
    assert {(row["study"], row["trial"], row["attempt"]) for row in rows} == {("toy", 1, 1)}
    assert rows[1]["worker"] == "in-process"


def test_following_a_study_that_is_over_ends(hpo: Hpo, store: Store) -> None:
    _finished(store)
    assert hpo("logs", "toy", "--follow").stdout == hpo("logs", "toy").stdout


def test_what_is_not_there_or_no_time_is_refused(hpo: Hpo, store: Store) -> None:
    _finished(store)
    assert "has no trial 7" in hpo("logs", "toy", "7", code=2).stderr
    assert "there is no study" in hpo("logs", "tay", code=2).stderr
    assert "is no time" in hpo("logs", "toy", "--since", "yesterday", code=2).stderr


def test_a_length_of_time_or_a_date_may_be_given() -> None:
    assert _time("90s", 1000.0) == 910.0
    assert _time("1.5h", 10000.0) == 4600.0
    assert _time("1970-01-02", 0.0) == 86400.0
    assert _time("1970-01-01T01:00:00+01:00", 5.0) == 0.0
    with pytest.raises(UsageError, match="is no time"):
        _time("soon", 0.0)


def test_watching_in_a_pipe_prints_a_line_for_each_change_and_ends_with_the_study(store: Store) -> None:
    now = time.time()
    store.create_study(benches.study(3), {}, now)
    lease = store.acquire("toy", "me", 30.0, now)
    looks = iter(
        [
            lambda: store.set_state(lease, StudyState.RUNNING, "", now),
            lambda: None,
            lambda: _stopped(store, lease, now),
        ]
    )
    out = io.StringIO()
    watch_study(store, "toy", False, stream=out, wait=lambda _: next(looks)(), clock=lambda: now)
    said = [line.partition(" ")[2] for line in out.getvalue().splitlines()]
    assert said == [
        "toy created; trials: 0 of 3",
        "toy running; trials: 0 of 3",
        "toy stopped (drained); trials: 0 of 3; coordinator: none",
    ]


def test_watching_as_json_prints_one_object_a_change(store: Store) -> None:
    _finished(store)
    out = io.StringIO()
    watch_study(store, "toy", True, stream=out)
    (found,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (found["state"], found["counts"], found["retries"]) == ("finished", {"completed": 3}, {})


def _stopped(store: Store, lease: Lease, at: float) -> None:
    store.set_state(lease, StudyState.STOPPED, "drained", at)
    store.release(lease, at)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_watching_on_a_terminal_redraws_until_the_study_is_over(store: Store) -> None:
    now = time.time()
    study = benches.study(2)
    store.create_study(study, {}, now)
    out = _Terminal()
    watch_study(store, "toy", False, stream=out, wait=lambda _: _run(store))
    assert "study toy: finished" in out.getvalue()
    assert "2 completed" in out.getvalue()


def _run(store: Store) -> None:
    study = benches.study(2)
    coordinate(store, study, in_process(study))


def test_status_names_the_coordinator_and_silent_workers(hpo: Hpo, store: Store) -> None:
    _finished(store)
    assert "coordinator: none" in hpo("status", "toy").stdout
    lease = store.acquire("toy", "somebody", 60.0, time.time())
    assert "coordinator: somebody, epoch 2, lease for another" in hpo("status", "toy").stdout
    store.renew(lease, -5.0, time.time())
    assert "somebody is gone, its lease ran out" in hpo("status", "toy").stdout


def test_a_study_in_its_last_part_says_that_it_refines(hpo: Hpo, store: Store) -> None:
    _finished(store)
    assert "refining" not in hpo("status", "toy").stdout
    refining = benches.study(4, name="fine", search={"sampler": "sobol", "initial": 2, "refine": 0.5})
    coordinate(store, refining, in_process(refining))
    assert "refining: the last 50.0 % of the budget" in hpo("status", "fine").stdout
