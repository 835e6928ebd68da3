"""What a worker's disk says when nobody has listened: whole lines, whatever happened to the file."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.errors import HpoError
from hpo.healing_curve import HealingCurve
from hpo.run.bench import BenchSpec
from hpo.run.in_process import InProcessRunner
from hpo.run.job import FIRST_STAGE, Failure, Job, StageResult
from hpo.run.stage_journal import StageJournal
from hpo.space import Candidate
from hpo.trial import Cause, Measurement
from tests.disks import filled, small_disk
from tests.run import benches

JOB = Job(3, 2, Candidate.of({"x": 0.25, "heal": "lora"}), "plan", parent=1, parent_plan="p", known=("nll",))
RESULTS = (
    StageResult(FIRST_STAGE, 0.1, following="heal", notes={"screen_kl": 0.3, "word": "größer\n"}),
    StageResult("heal", 2.5, following="measure", curve=HealingCurve("distil", ((1, 2.5),), ((0, 3.0),))),
    StageResult(
        "measure", 1 / 3, following="time", measurements=(Measurement.exact("macs", 10),), joules=1.5
    ),
    StageResult("time", 0.2, failure=Failure(Cause.OUT_OF_MEMORY, "no room for\nit")),
)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageJournal:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    return StageJournal("study")


def written(journal: StageJournal, job: Job = JOB) -> Path:
    for result in RESULTS:
        journal.write(job, result)
    return journal.directory / f"{job.number}-{job.attempt}.jsonl"


# What is read is what was written


def test_a_journal_gives_back_every_result_in_its_order(journal: StageJournal) -> None:
    path = written(journal)
    assert journal.waiting() == [(JOB, result) for result in RESULTS]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(RESULTS)
    assert [json.loads(line)["result"]["stage"] for line in lines] == [r.stage for r in RESULTS]


def test_nothing_waits_where_nothing_was_written(journal: StageJournal) -> None:
    assert journal.waiting() == []
    journal.remove([JOB])
    assert not journal.directory.exists()


def test_trials_come_by_when_they_began_even_if_the_clock_went_back(
    journal: StageJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([50.0, 60.0, 40.0, 55.0])
    monkeypatch.setattr("hpo.run.stage_journal.time.time", lambda: next(times))
    late, early = (Job(number, 1, JOB.candidate, "") for number in (1, 2))
    journal.write(late, RESULTS[0])
    journal.write(late, RESULTS[1])
    journal.write(early, RESULTS[0])
    journal.write(early, RESULTS[1])
    told = [(job.number, result.stage) for job, result in journal.waiting()]
    assert told == [(2, FIRST_STAGE), (2, "heal"), (1, FIRST_STAGE), (1, "heal")]


def test_studies_do_not_read_each_other(journal: StageJournal) -> None:
    written(journal)
    assert StageJournal("another").waiting() == []


@pytest.mark.parametrize("name", ["", "../study", "a/b", "."])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(HpoError, match="journal cannot be called"):
        StageJournal(name)


def test_what_was_heard_is_removed_and_the_rest_stays(journal: StageJournal) -> None:
    other = Job(4, 1, JOB.candidate, "")
    written(journal)
    written(journal, other)
    journal.remove([JOB])
    assert {job for job, _ in journal.waiting()} == {other}


def test_a_later_attempt_says_that_the_earlier_ones_are_settled(journal: StageJournal) -> None:
    others = [Job(number, 1, JOB.candidate, "") for number in (13, 30, 33)]
    for job in (JOB, *others):
        written(journal, job)
    journal.write(Job(3, 3, JOB.candidate, ""), RESULTS[0])
    journal.write(Job(3, 3, JOB.candidate, ""), RESULTS[1])
    assert sorted({(job.number, job.attempt) for job, _ in journal.waiting()}) == [
        (3, 3),
        (13, 1),
        (30, 1),
        (33, 1),
    ]


# Torn and damaged files


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_cut_anywhere_loses_the_torn_line_alone(journal: StageJournal, share: float) -> None:
    journal.remove([JOB])
    path = written(journal)
    whole = path.read_bytes()
    cut = whole[: round(share * len(whole))]
    path.write_bytes(cut)
    # A line is whole when all but its end of line is there.
    ends = [n for n, byte in enumerate(whole) if byte == ord("\n")]
    kept = sum(len(cut) >= end for end in ends)
    assert journal.waiting() == [(JOB, result) for result in RESULTS[:kept]]
    # and what is written after that is not lost with it
    journal.write(JOB, RESULTS[-1])
    assert journal.waiting() == [(JOB, result) for result in (*RESULTS[:kept], RESULTS[-1])]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255))
def test_a_byte_that_changed_loses_its_own_line_at_most(
    journal: StageJournal, share: float, change: int
) -> None:
    journal.remove([JOB])
    path = written(journal)
    content = bytearray(path.read_bytes())
    place = int(share * len(content))
    ends_line = content[place] == ord("\n")  # then the next one is torn with it
    content[place] ^= change
    path.write_bytes(content)
    found = [result for _, result in journal.waiting()]
    assert all(result in RESULTS for result in found), "nothing is told that was not written"
    touched = bytes(content[:place]).count(b"\n")
    torn = {touched, touched + ends_line}
    kept = [result for number, result in enumerate(RESULTS) if number not in torn]
    assert [result for result in found if result in kept] == kept


@pytest.mark.parametrize("content", [b"", b"\n\n", b"no journal", b"[1, 2]\n", b'"word"\n', b"\xff\xfe\n"])
def test_a_file_of_something_else_is_passed_over(journal: StageJournal, content: bytes) -> None:
    written(journal)
    (journal.directory / "9-1.jsonl").write_bytes(content)
    assert [result for _, result in journal.waiting()] == list(RESULTS)


# A disk that is full


def test_a_full_disk_costs_the_journal_a_line_and_the_trial_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        monkeypatch.setenv("HPO_CACHE", str(disk))
        journal = StageJournal("study")
        journal.write(JOB, RESULTS[0])
        ballast = filled(disk)
        if ballast is None:
            _refuse_after(monkeypatch, 7)
        long = StageResult("heal", 0.0, notes={"word": "w" * 100_000})
        journal.write(JOB, long)
        assert "No space left" in caplog.text
        assert journal.waiting() == [(JOB, RESULTS[0])]
        monkeypatch.undo()
        monkeypatch.setenv("HPO_CACHE", str(disk))
        if ballast is not None:
            ballast.unlink()
        journal.write(JOB, RESULTS[1])
        assert journal.waiting() == [(JOB, RESULTS[0]), (JOB, RESULTS[1])]
        assert (journal.directory / "3-2.jsonl").read_bytes().count(b"\n") == 2, "nothing torn is left"


def _refuse_after(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let a disk take so many bytes more and then no more."""
    real, left = os.write, [size]

    def write(handle: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken, left[0] = left[0], 0
        return real(handle, data[:taken])

    monkeypatch.setattr(os, "write", write)


def test_a_disk_that_takes_part_of_a_line_keeps_none_of_it(
    journal: StageJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.write(JOB, RESULTS[0])
    with monkeypatch.context() as patch:
        _refuse_after(patch, 7)
        journal.write(JOB, RESULTS[1])
    journal.write(JOB, RESULTS[2])
    assert journal.waiting() == [(JOB, RESULTS[0]), (JOB, RESULTS[2])]
    assert len((journal.directory / "3-2.jsonl").read_bytes().splitlines()) == 2


def test_a_directory_that_cannot_be_made_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "file"))
    StageJournal("study").write(JOB, RESULTS[0])
    assert "trial 3 is not in the journal" in caplog.text


# A bench that journals


def spec(journal: str, **faults: Any) -> BenchSpec:
    return BenchSpec(benches.TOY, {"faults": faults}, journal)


def runner(journal: str) -> InProcessRunner:
    return InProcessRunner(spec(journal), benches.study().run)


def test_a_result_is_on_disk_when_it_is_told(journal: StageJournal) -> None:
    bench = spec("study").make()
    job = Job(0, 1, Candidate.of({"x": 0.5}), "")
    told = [bench.run(job, stage) for stage in benches.STAGES]
    assert journal.waiting() == bench.waiting() == [(job, result) for result in told]
    bench.forget()
    assert journal.waiting() == []


def test_a_bench_forgets_its_own_job_alone(journal: StageJournal) -> None:
    other = Job(7, 1, Candidate.of({"x": 0.1}), "")
    journal.write(other, RESULTS[0])
    bench = spec("study").make()
    bench.forget()
    bench.run(Job(0, 1, Candidate.of({"x": 0.5}), ""), FIRST_STAGE)
    bench.forget()
    assert journal.waiting() == [(other, RESULTS[0])]
    bench.settle([other])
    assert journal.waiting() == []


def test_without_a_name_nothing_is_written(journal: StageJournal) -> None:
    bench = spec("").make()
    bench.run(Job(0, 1, Candidate.of({"x": 0.5}), ""), FIRST_STAGE)
    assert bench.waiting() == []
    assert not journal.directory.parent.exists()


def test_a_runner_that_closes_unheard_leaves_its_results_to_the_next(journal: StageJournal) -> None:
    first = runner("study")
    first.start()
    job = Job(0, 1, Candidate.of({"x": 0.5}), "")
    first.submit(job, FIRST_STAGE)
    (report,) = first.wait(1.0)
    first.close()
    second = runner("study")
    assert second.unheard() == [(job, report.result)]
    second.settle([job])
    assert second.unheard() == []


def test_a_job_that_is_released_waits_for_nobody(journal: StageJournal) -> None:
    made = runner("study")
    made.start()
    job = Job(0, 1, Candidate.of({"x": 0.5}), "")
    made.submit(job, FIRST_STAGE)
    assert made.alive() == {0: 0.0}
    made.wait(1.0)
    made.release(job)
    assert (made.unheard(), made.alive()) == ([], {})
