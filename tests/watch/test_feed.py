"""The log of a study as its store tells it: order, workers, words, and no secret."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.errors import NotFound
from hpo.run.lease import owner_name
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.trial import Cause, StageTime, Trial
from hpo.watch.feed import Feed
from hpo.watch.line import Line, printable, stamp
from hpo.watch.redaction import Redactor
from tests.run import benches
from tests.run.conftest import coordinate, in_process


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/study.db") as opened:
        yield opened


def test_every_event_of_a_study_is_a_line_in_order(store: Store) -> None:
    study = benches.study(4)
    coordinate(store, study, in_process(study, _2="nan"))
    lines = list(Feed(store, "toy").read())
    assert [line.id for line in lines] == [event.id for event in store.events("toy")]
    of_trial_2 = [(line.event, line.worker) for line in lines if line.trial == 2]
    assert of_trial_2 == [
        ("asked", ""),
        ("started", "in-process"),
        ("stage_done", "in-process"),
        ("failed", "in-process"),
    ]
    (failed,) = [line for line in lines if line.event == "failed"]
    assert failed.message == "not a number: told to nan"
    completed = next(line for line in lines if line.event == "completed")
    assert completed.message.startswith("perplexity ")
    assert lines[-2].message == "finished: the budget of trials is used: 4 of 4"
    assert lines[-1].message.startswith("released by ")


def test_a_trial_has_its_own_log(store: Store) -> None:
    study = benches.study(3)
    coordinate(store, study, in_process(study))
    assert {line.trial for line in Feed(store, "toy", 1).read()} == {1}
    with pytest.raises(NotFound, match="has no trial 9"):
        Feed(store, "toy", 9)


def test_reading_on_gives_what_is_new_and_nothing_twice(store: Store) -> None:
    study = benches.study(2)
    coordinate(store, study, in_process(study))
    feed = Feed(store, "toy")
    assert list(feed.read())
    assert list(feed.read()) == []
    more = benches.study(3)
    coordinate(store, more, in_process(more))
    assert {line.trial for line in feed.read()} == {None, 2}


def _lost(store: Store, why: str) -> None:
    store.create_study(benches.study(3), {}, 1.0)
    lease = store.acquire("toy", owner_name(), 30.0, time.time())
    trial = Trial(0, benches.study().space.candidate({"x": 0.5}), "sobol", "p", created_at=2.0)
    store.add_trial(lease, trial, (), 2.0)
    trial = trial.started("worker-1", 3.0)
    store.save_trial(lease, trial, EventKind.STARTED, 3.0, {"worker": "worker-1"})
    store.note(lease, EventKind.LOST, 4.0, 0, 1, {"worker": "worker-1", "why": why, "cause": "timed_out"})
    trial = trial.requeued()
    store.save_trial(lease, trial, EventKind.REQUEUED, 5.0, {"why": why})
    trial = trial.started("worker-0", 6.0).advanced(StageTime("compress", 1.5))
    store.save_trial(lease, trial, EventKind.STARTED, 6.0, {"worker": "worker-0"})
    store.save_trial(lease, trial.failed(Cause.ERROR, why, 7.0), EventKind.FAILED, 7.0)


def test_each_attempt_has_the_worker_that_had_it(store: Store) -> None:
    _lost(store, "it was silent")
    lines = list(Feed(store, "toy", 0).read())
    assert [(line.event, line.attempt, line.worker) for line in lines] == [
        ("asked", 1, ""),
        ("started", 1, "worker-1"),
        ("lost", 1, "worker-1"),
        ("requeued", 2, ""),
        ("started", 2, "worker-0"),
        ("failed", 2, "worker-0"),
    ]
    assert lines[2].message == "timed out: it was silent"
    assert (
        lines[2].text()
        == "1970-01-01T00:00:04.000Z lost       trial 0 worker-1         timed out: it was silent"
    )


def test_a_line_holds_no_secret_in_its_words_or_its_details(store: Store) -> None:
    _lost(store, "cannot reach db: password=open-sesame")
    for line in Feed(store, "toy", redactor=Redactor(["other-secret"])).read():
        assert "open-sesame" not in line.text() + str(line.to_mapping())


def test_what_a_worker_says_cannot_steer_the_terminal() -> None:
    assert printable("one\n\x1b[2Jtwo\x07") == "one |  [2Jtwo "
    line = Line(1, 0.0, "toy", "failed", 0, 1, "\x1b]0;w\x07", "a\nb", {})
    assert "\x1b" not in line.text()
    assert "\n" not in line.text()


def test_times_are_in_utc_with_milliseconds() -> None:
    assert stamp(86400.25) == "1970-01-02T00:00:00.250Z"
