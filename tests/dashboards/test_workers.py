"""Workers: attempts, signs of life, idle shares, and what their page says."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboards.app import page_at
from dashboards.source import StudySource
from dashboards.timeline import LATEST, draw_timeline, shortened, timeline
from dashboards.worker_log import LostAttempt, WorkerLog, WorkerLogs
from dashboards.workers import (
    Attempt,
    Outcome,
    Watch,
    Worker,
    attempts_of,
    end_of,
    idle_share,
    periods_of,
    workers_of,
)
from dashboards.workers_page import lease_parts, look
from hpo.store.store import Store
from hpo.store.values import Event, EventKind, Lease, StudyState
from hpo.trial import Cause, Trial
from tests.dashboards.hand import asked
from tests.dashboards.synthetic import ENVIRONMENT, START, candidate, study_named, write_trial
from tests.dashboards.test_app import text_of
from tests.dashboards.working import BEGIN, write_working


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudySource]:
    source = StudySource(write_working(tmp_path_factory.mktemp("working") / "hpo.db"))
    yield source
    source.close()


def both(source: StudySource, at: float) -> tuple[Worker, ...]:
    return look(source, "working", BEGIN + at).workers


def test_idle_shares_are_as_worked_out_by_hand(working: StudySource) -> None:
    # Worker 0, from 10 to 100: busy 30 + 50 of 90. Worker 1, from 20 to 100: 10 + 20 + 10 of 80.
    zero, one = both(working, 100)
    assert zero.idle == pytest.approx(10 / 90)
    assert one.idle == pytest.approx(40 / 80)


def test_what_a_worker_runs_since_when_and_its_last_sign_of_life(working: StudySource) -> None:
    zero, one = both(working, 100)
    (now,) = zero.now
    assert (now.trial, now.start, zero.stages) == (2, BEGIN + 50, 1)
    assert zero.last_sign == BEGIN + 65
    assert (one.now, one.last_sign) == ((), BEGIN + 80)


def test_lost_attempts_count_for_the_worker_and_by_cause(working: StudySource) -> None:
    zero, one = both(working, 100)
    assert (dict(zero.lost), dict(one.lost)) == ({}, {"the worker died": 1})
    assert (zero.trials, one.trials, one.failed) == (1, 2, 0)
    assert (zero.retries, one.retries) == (0, 1)


def test_the_device_is_that_of_the_newest_measurement(working: StudySource) -> None:
    assert [w.device for w in both(working, 100)] == ["cpu:test-machine", "cpu:test-machine"]


def test_reading_the_log_again_takes_in_what_is_new_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write_working(tmp_path / "hpo.db")
    logs = WorkerLogs()
    with Store.open(url) as store:
        first = logs.read(store, "working", BEGIN)
        newest = first.newest
        asked_for: list[int] = []
        events = store.events

        def counting(name: str, after: int = 0, limit: int | None = None) -> tuple[Event, ...]:
            asked_for.append(after)
            return events(name, after, limit)

        monkeypatch.setattr(store, "events", counting)
        assert logs.read(store, "working", BEGIN) is first
        assert asked_for == [newest]
        assert len(first.lost) == 1


def test_a_study_made_again_under_its_name_has_a_log_of_its_own(tmp_path: Path) -> None:
    logs = WorkerLogs()
    with Store.open(write_working(tmp_path / "hpo.db", lease_s=1.0)) as store:
        assert logs.read(store, "working", BEGIN).lost
        store.delete_study("working")
        store.create_study(study_named("working"), ENVIRONMENT, BEGIN + 1)
        assert logs.read(store, "working", BEGIN + 1).lost == []


# Idle shares


@pytest.mark.parametrize(
    ("spans", "periods", "since", "idle"),
    [
        ([(0, 10)], [(0, 10)], 0, 0.0),
        ([(0, 5)], [(0, 10)], 0, 0.5),
        ([(2, 4), (3, 6)], [(0, 8)], 2, 2 / 6),  # overlapping spans count once
        ([(0, 4), (6, 9)], [(0, 5), (7, 10)], 0, 2 / 8),  # what lies between the periods counts for nothing
        ([(0, 20)], [(5, 10)], 0, 0.0),  # spans may reach out of the periods
        ([], [(0, 10)], 0, 1.0),
        ([(1, 2)], [(0, 1)], 1, None),
        ([(1, 2)], [], 1, None),
    ],
)
def test_idle_is_the_share_of_the_running_time_that_no_span_covers(
    spans: list[tuple[float, float]], periods: list[tuple[float, float]], since: float, idle: float | None
) -> None:
    assert idle_share(spans, periods, since) == (None if idle is None else pytest.approx(idle))


# The log


def event(
    number: int,
    at: float,
    kind: EventKind,
    trial: int | None = None,
    attempt: int | None = None,
    **payload: object,
) -> Event:
    return Event(number, at, kind, trial, attempt, payload)


def test_time_in_which_the_study_was_stopped_is_not_idle() -> None:
    log = WorkerLog()
    log.add(
        [
            event(1, 0.0, EventKind.STATE, state="running"),
            event(2, 10.0, EventKind.STATE, state="stopped"),
            event(3, 50.0, EventKind.STATE, state="running"),
        ]
    )
    assert periods_of(log, [], 60.0) == [(0.0, 10.0), (50.0, 60.0)]


def test_a_coordinator_that_died_without_a_word_ran_until_its_last_trial_event() -> None:
    log = WorkerLog()
    log.add(
        [
            event(1, 0.0, EventKind.STATE, state="running"),
            event(2, 5.0, EventKind.STARTED, 0, 1, worker="worker-0"),
            event(3, 9.0, EventKind.STAGE_DONE, 0, 1, stage="compress", seconds=4.0),
            event(4, 99.0, EventKind.LEASE, action="acquired"),
            event(5, 100.0, EventKind.STATE, state="running"),
            event(6, 101.0, EventKind.REQUEUED, 0, 2, why="the coordinator that ran it is gone"),
        ]
    )
    assert log.periods == [(0.0, 9.0), (100.0, None)]
    why = "the coordinator that ran it is gone"
    assert log.lost == [LostAttempt("worker-0", 0, 1, 5.0, 9.0, why, crashed=False)]


def test_a_trial_that_failed_with_its_last_worker_lost_is_one_attempt() -> None:
    lost = LostAttempt("worker-0", 0, 1, 1.0, 2.0, "the worker died", crashed=True)
    failed = asked(0).started("worker-0", 1.0).failed(Cause.LOST_WORKER, "the worker died", 2.0)
    assert attempts_of([failed], [lost]) == [Attempt("worker-0", 0, 1, 1.0, 2.0, Outcome.LOST)]


def workers(trials: list[Trial], log: WorkerLog | None = None, until: float = 10.0) -> list[Worker]:
    known = log or WorkerLog()
    return workers_of(trials, attempts_of(trials, known.lost), known, until)


def test_trials_that_never_ran_are_no_attempts() -> None:
    refused = asked(1).failed(Cause.UNSUPPORTED, "", 1.0)
    assert attempts_of([asked(0), refused], []) == []
    assert workers([asked(0), refused]) == []


def test_a_study_that_is_over_is_idle_until_its_last_event_only() -> None:
    over = asked(0).started("worker-0", 0.0).completed(30.0)
    log = WorkerLog(last_at=40.0)
    assert end_of(log, [over], alive=False, now=1e6) == 40.0
    (worker,) = workers([over], log, 40.0)
    assert worker.idle == pytest.approx(10 / 40)


def test_workers_are_in_order_of_their_numbers() -> None:
    trials = [asked(n).started(f"worker-{n}", 1.0) for n in (10, 2, 1)]
    assert [w.name for w in workers(trials)] == ["worker-1", "worker-2", "worker-10"]


# The lease


def watch(expires_at: float | None, running: int = 1, claims: bool = True) -> Watch:
    lease = None if expires_at is None else Lease("quick", "node-7:42", 3, expires_at)
    return Watch(lease, running, claims, now=1000.0)


@pytest.mark.parametrize(
    ("guard", "deserted"),
    [
        (watch(1030.0), False),
        (watch(940.0), True),
        (watch(None), True),
        (watch(None, running=0, claims=False), False),
        (watch(None, running=1, claims=False), True),
    ],
)
def test_a_study_is_deserted_that_should_run_and_has_no_good_lease(guard: Watch, deserted: bool) -> None:
    assert guard.is_deserted is deserted


def test_an_expired_lease_is_said_with_what_to_do() -> None:
    said = str(lease_parts(watch(940.0, running=2), "quick"))
    assert "its lease expired 1 min ago, though 2 trials are marked as running" in said
    assert "hpo resume quick" in said
    assert "hpo resume" not in str(lease_parts(watch(1030.0), "quick"))


# The timeline


def attempt(number: int, worker: str = "worker-0", end: float | None = None) -> Attempt:
    outcome = Outcome.RUNNING if end is None else Outcome.COMPLETED
    return Attempt(worker, number, 1, float(number), end, outcome)


def test_bars_are_in_seconds_since_the_first_start_and_running_ones_end_now(working: StudySource) -> None:
    shown = look(working, "working", BEGIN + 100).timeline
    bars = {(b.trial, b.attempt): (round(b.start), round(b.end), b.outcome) for b in shown.bars}
    assert bars == {
        (0, 1): (0, 30, Outcome.COMPLETED),
        (1, 1): (10, 20, Outcome.LOST),
        (1, 2): (30, 50, Outcome.COMPLETED),
        (2, 1): (40, 90, Outcome.RUNNING),
        (3, 1): (60, 70, Outcome.STOPPED),
    }
    assert shown.caption == (
        "5 attempts on 2 workers: 1 running, 2 completed, 1 stopped early, 1 worker lost."
    )


def test_of_many_attempts_the_latest_are_drawn_and_it_is_said_so() -> None:
    many = [attempt(n, end=n + 0.5) for n in range(LATEST + 20)]
    shown = timeline(many, ["worker-0"], 0.0, 1e4)
    assert (len(shown.bars), shown.bars[0].trial, shown.hidden) == (LATEST, 20, 20)
    assert f"{LATEST} attempts, the latest of {LATEST + 20}" in shown.caption


def test_of_many_workers_those_are_drawn_that_began_something_last() -> None:
    many = [attempt(n, f"worker-{n}", n + 1.0) for n in range(60)]
    shown = timeline(many, [f"worker-{n}" for n in range(60)], 0.0, 1e4)
    assert shown.workers == tuple(f"worker-{n}" for n in range(20, 60))


def test_every_outcome_has_a_pattern_or_colour_of_its_own() -> None:
    attempts = [Attempt("w", n, 1, n, n + 1.0, outcome) for n, outcome in enumerate(Outcome)]
    figure = draw_timeline(timeline(attempts, ["w"], 0.0, 9.0), "x")
    looks = {(bar.marker.color, bar.marker.pattern.shape) for bar in figure.data}
    assert len(looks) == len(figure.data) == len(Outcome)
    assert len({bar.marker.pattern.shape for bar in figure.data}) == len(Outcome)


def test_names_of_workers_are_shown_as_text() -> None:
    nasty = "<b>" + "x" * 300
    figure = draw_timeline(timeline([attempt(0, nasty, 2.0)], [nasty], 0.0, 2.0), "x")
    assert figure.layout.yaxis.ticktext[0].startswith("&lt;b&gt;")
    assert len(shortened(nasty, 18)) == 18


def test_without_attempts_the_figure_says_so() -> None:
    assert "No worker has begun" in draw_timeline(timeline([], [], 0.0, 0.0), "x").layout.annotations[0].text


# The page


def small(path: Path, *trials: Trial) -> StudySource:
    url = f"sqlite:///{path / 'small.db'}"
    with Store.open(url) as store:
        store.create_study(study_named("small"), ENVIRONMENT, START)
        lease = store.acquire("small", "test", 600.0, START)
        store.set_state(lease, StudyState.RUNNING, "", START)
        for trial in trials:
            write_trial(store, lease, trial)
    return StudySource(url)


def test_the_page_shows_coordinator_workers_and_what_was_lost(working: StudySource) -> None:
    page = text_of(page_at(working, "/study/working/workers", None))
    for part in ("node-7:4242", "worker-1", "trial 2", "the worker died", "1 stage done", "cpu:test-machine"):
        assert part in page
    assert "hpo resume" not in page


def test_a_study_whose_coordinator_is_gone_says_how_to_go_on(tmp_path: Path) -> None:
    source = small(tmp_path, asked(0).started("worker-0", START))
    page = text_of(page_at(source, "/study/small/workers", None))
    source.close()
    assert "The coordinator is gone" in page
    assert "hpo resume small" in page
    assert "nobody is watching" in page


def test_a_study_without_trials_has_a_workers_page(tmp_path: Path) -> None:
    source = small(tmp_path)
    page = text_of(page_at(source, "/study/small/workers", None))
    source.close()
    assert page.count("No worker has begun a trial yet.") == 2


def test_a_study_with_failed_trials_only_has_a_workers_page(tmp_path: Path) -> None:
    ran = asked(0).started("worker-0", START).failed(Cause.ERROR, "<b>boom</b>", START + 5)
    refused = Trial(1, candidate(0.4), "sobol", created_at=START).failed(Cause.UNSUPPORTED, "", START)
    source = small(tmp_path, ran, refused)
    here = look(source, "small", START + 100)
    source.close()
    (worker,) = here.workers
    assert (worker.trials, worker.failed) == (1, 1)


def test_the_workers_of_an_unknown_study_are_not_found(working: StudySource) -> None:
    assert "did you mean 'working'?" in text_of(page_at(working, "/study/workin/workers", None))
