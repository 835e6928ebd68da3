"""The file in which runs are kept with the code."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.search import searcher
from benchmarks.search.archive import Archive, Current, Session, rounded
from benchmarks.search.race import Key, Run
from hpo.errors import HpoError

FIRST, SECOND = Session("2026-01-01", "a machine"), Session("2026-01-02", "another machine")


def made(seed: int = 0, version: str = "v", name: str = "random", share: float = 0.5) -> Run:
    key = Key("zdt1", name, version, seed, 2, 8)
    return Run(key, 0.25, (0.3, share), (1.0, 2.0), (0.1, 0.2), refused=1, repeated=2, front=3)


def test_what_is_written_is_read_again_and_equal_runs_in_any_order_give_equal_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "one.gz", tmp_path / "two" / "other.gz"
    Archive().joined([made(0), made(1)], FIRST).write(one)
    Archive().joined([made(1), made(0)], FIRST).write(other)
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes()[4:8] == bytes(4)  # no time in the head of the gzip
    read = Archive.read(one)
    assert read.runs == (made(0), made(1))
    assert read.counts == {FIRST: 2}
    assert Archive.read(tmp_path / "nothing") == Archive()


def test_numbers_are_kept_to_five_digits_and_cpu_seconds_to_three() -> None:
    run = replace(
        made(), anchors=0.123456, hypervolumes=(0.9999951,), seconds=(1234.567,), ask_seconds=(1.2345,)
    )
    found = rounded(run)
    assert (found.anchors, found.hypervolumes, found.seconds) == (0.12346, (1.0,), (1234.6,))
    assert found.ask_seconds == (1.23,)
    assert rounded(found) == found


def test_a_newer_run_of_a_race_takes_the_place_of_the_older_one_and_of_its_session() -> None:
    first = Archive().joined([made(0), made(1)], FIRST)
    second = first.joined([made(0), made(1, version="w")], SECOND)
    assert second.runs == (made(0), made(1, version="w"))
    assert second.counts == {FIRST: 1, SECOND: 1}  # what was there already is not of the second session


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"", mtime=0), gzip.compress(b'{"sessions": []}\n{"key": 1}\n', mtime=0)],
)
def test_a_file_that_is_no_archive_is_an_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "races.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(HpoError, match="no archive of races") as error:
        Archive.read(path)
    assert "make bench-search" in str(error.value)


def test_two_runs_of_one_race_are_refused() -> None:
    with pytest.raises(ValueError, match="2 runs of 1 races"):
        Archive((made(), made(version="w")), (FIRST, FIRST))


def test_runs_of_another_version_are_left_out_and_counted() -> None:
    now = searcher.version_of("random")
    found = Current.of([made(0, now), made(1, "numpy 0.1, older"), made(2, "v", name="no such searcher")])
    assert found == Current((made(0, now),), stale=2, unchecked=())


def test_runs_of_a_searcher_that_is_missing_here_are_taken_at_their_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(searcher, "missing", lambda name: "not installed" if name == "smac" else "")
    found = Current.of([made(0, "smac 2", name="smac"), made(0, "older")])
    assert found == Current((made(0, "smac 2", name="smac"),), stale=1, unchecked=("smac",))
