import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from dashboards.downloads import encoded
from dashboards.front import knee_of
from dashboards.report import report_html, write_files
from dashboards.report_members import MOST, chosen
from dashboards.source import Snapshot, read
from hpo.errors import HpoError, NotFound, UsageError
from hpo.skill import Foretold
from hpo.store.spending import Spent, Work
from hpo.store.store import Store
from hpo.store.values import Request, StudyRecord, StudyState
from hpo.study import Study
from hpo.trial import Cause, Objective, Trial
from tests.dashboards.hand import OBJECTIVES, TRIALS, pair
from tests.dashboards.storied import write_story, write_wide
from tests.dashboards.synthetic import ENVIRONMENT, START, asked, candidate, study_named, write_trial


class Page(HTMLParser):
    """Collects what a report would load, its tags, and the text of each element by id or tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.loads += [value for name in ("src", "href", "data", "action") if (value := given.get(name))]
        if tag not in ("meta", "link", "br"):
            self._open.append(given.get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else ""
        self.texts[where] = self.texts.get(where, "") + data


@pytest.fixture(scope="module")
def report(store_url: str) -> str:
    with Store.open(store_url, read_only=True) as store:
        return report_html(read(store, "halfway"), START)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return a report that goes into the members of its front, and where it lies."""
    directory = tmp_path_factory.mktemp("story")
    out = directory / "storied.html"
    with Store.open(write_story(directory / "story.db")) as store:
        write_files(store, "storied", out)
    return out.read_text("utf-8"), out


def test_a_report_loads_nothing(report: str) -> None:
    assert Page(report).loads == ["data:,"]
    assert not re.search(r"@import|url\(\s*['\"]?http", report.partition("<script")[0])


def test_a_report_holds_plotly_once(report: str) -> None:
    page = Page(report)
    assert page.tags.count("script") == 3
    assert 4_000_000 < len(report) < 7_000_000


def test_a_report_forbids_all_connections_and_all_scripts_but_its_own_two(report: str) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', report)
    assert "default-src &#39;none&#39;" in policy
    assert policy.count("sha256-") == 2
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_a_report_has_a_figure_for_the_first_objective_and_each_other(report: str) -> None:
    drawn = json.loads(Page(report).texts["figures"])
    assert set(drawn["figures"]) == {
        "front-prefill_latency",
        "front-weight_memory",
        "front-energy",
        "matrix",
        "hypervolume",
        "importance",
    }
    assert drawn["config"]["showSendToCloud"] is False


def test_a_report_says_what_the_study_was_and_what_to_be_careful_about(report: str) -> None:
    page = Page(report)
    assert page.texts["h1"] == "halfway"
    assert "Energy is modelled, not measured" in page.texts["li"]
    for part in ("out of memory", "the loss became NaN at step 7", "12 (knee)", "breaks a limit"):
        assert part in page.texts["td"]
    assert all(part in page.texts["td"] for part in ("0.21", "91.7 %")), "how good the search's model is"
    assert ENVIRONMENT["torch"] in page.texts["dd"]
    assert study_named("halfway").hash in page.texts["dd"]


def test_the_document_in_a_report_asks_the_same_question(report: str) -> None:
    document = yaml.safe_load(Page(report).texts["pre"])
    assert Study.from_mapping(document).hash == study_named("halfway").hash


def test_markup_in_a_study_is_text(tmp_path: Path) -> None:
    nasty = "</script><script>alert('🙂 & \"more\"')</script><img src=http://evil.example/x>"
    failed = asked(0, candidate(0.5), nasty).failed(Cause.ERROR, nasty, START)
    with Store.open(f"sqlite:///{tmp_path / 'nasty.db'}") as store:
        store.create_study(study_named("nasty", nasty), {nasty: nasty}, START)
        write_trial(store, store.acquire("nasty", "test", 60.0, START), failed)
        page = Page(report_html(read(store, "nasty"), START))
    assert page.loads == ["data:,"]
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert nasty in page.texts["p"]
    assert nasty in page.texts["td"]
    assert nasty in page.texts["dt"]


def test_a_study_without_trials_has_a_report(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'new.db'}") as store:
        store.create_study(study_named("new"), {}, START)
        page = Page(report_html(read(store, "new"), START))
    assert "No trial is within all limits yet." in page.texts["p"]
    assert "No trial has finished yet." in page.texts["figures"]


def test_a_report_is_never_overwritten_unasked(store_url: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("precious")
    with Store.open(store_url, read_only=True) as store:
        with pytest.raises(UsageError, match="is there already"):
            write_files(store, "halfway", out)
        assert out.read_text() == "precious"
        write_files(store, "halfway", out, force=True)
    assert out.read_text("utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(("place", "said"), [(".", "is a directory"), ("no/r.html", "there is no directory")])
def test_a_place_that_cannot_be_written_is_an_error(
    store_url: str, tmp_path: Path, place: str, said: str
) -> None:
    with Store.open(store_url, read_only=True) as store, pytest.raises(UsageError, match=said):
        write_files(store, "halfway", tmp_path / place)


def test_an_unknown_study_leaves_no_file(store_url: str, tmp_path: Path) -> None:
    with Store.open(store_url, read_only=True) as store, pytest.raises(NotFound, match="no study 'other'"):
        write_files(store, "other", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_every_figure_has_a_place_and_every_place_a_label(story: tuple[str, Path]) -> None:
    text = story[0]
    drawn = json.loads(Page(text).texts["figures"])["figures"]
    places = dict(re.findall(r"<div id='([^']*)' class='figure' role='figure' aria-label='([^']*)'", text))
    assert set(places) == set(drawn)
    assert all(places.values())
    assert {"plan-1", "plan-3", "healing-1", "healing-2", "matrix"} <= set(drawn)


def test_a_report_goes_into_the_members_of_the_front(story: tuple[str, Path]) -> None:
    page = Page(story[0])
    for part in ("Trial 3 (knee): mpo(keep_ratio=0.52)", "Trial 1: svd(keep_ratio=0.5)"):
        assert part in page.texts["summary"]
    assert "hpo export storied 1 --out storied-1" in page.texts["pre"]
    assert "fell from 4.1 to 2.6 nats per token in 60 steps" in page.texts["p"]
    assert "4 bits, groups of 64" in page.texts["td"]
    assert "What is kept of each layer" in page.texts["h3"]
    assert story[0].count("<details open>") == 1, "the knee alone is open, the others are a click away"


def test_a_report_says_how_far_the_models_word_is_to_be_trusted_and_what_was_stopped(
    report: str, store_url: str
) -> None:
    page = Page(report)
    assert "Stopped early" in page.texts["h2"]
    assert "its optimistic bound is dominated" in page.texts["td"]
    with Store.open(store_url, read_only=True) as store:
        now = read(store, "halfway")
    told = tuple(Foretold(n, 5.0 + n / 12, 5.0 + n / 10, 4.5, 7.0) for n in range(12))
    judged = replace(now.skills[0], foretold=told)
    drawn = json.loads(Page(report_html(replace(now, skills=(judged,)), START)).texts["figures"])["figures"]
    assert "calibration-perplexity" in drawn


def test_many_members_are_shown_evenly_along_the_first_objective_with_the_knee() -> None:
    line = [pair(n, 10.0 + n, 100.0 - n, "anchor:dense" if n == 0 else "sobol") for n in range(20)]
    shown = chosen(shot(OBJECTIVES, line))
    assert len(shown) == MOST
    numbers = [trial.number for trial in shown]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, 19)
    assert knee_of(OBJECTIVES, line) in numbers
    assert [t.number for t in chosen(shot(OBJECTIVES, TRIALS))] == [0, 4, 1]
    assert chosen(shot(OBJECTIVES, [])) == ()


def shot(objectives: Sequence[Objective], trials: Sequence[Trial]) -> Snapshot:
    study = study_named("hand").model_copy(update={"objectives": tuple(objectives)})
    record = StudyRecord(study, StudyState.RUNNING, "", Request.NONE, START, START, 0.0, {})
    return Snapshot(record, tuple(trials), len(trials), Spent(len(trials), 0.0, Work(), 0.0))


def test_long_tables_are_folded_and_of_very_many_trials_the_last_are_shown() -> None:
    many = [replace(pair(n, 10.0, 100.0), number=n) for n in range(1100)]
    text = report_html(shot(OBJECTIVES, many), START)
    page = Page(text)
    assert "All 1100 of them as a table" in page.texts["summary"]
    assert "1,000 trials" in page.texts["summary"]
    assert (
        "The last 1,000 of 1,100. All of them as a table: hpo report hand --data trials.csv"
        in page.texts["p"]
    )
    assert "about 1,000 of 1,100 trials are drawn" in page.texts["p"]


@pytest.mark.parametrize("count", [0, 3])
def test_a_study_of_twelve_objectives_has_a_report(tmp_path: Path, count: int) -> None:
    with Store.open(write_wide(tmp_path / "wide.db")) as store:
        now = read(store, "wide")
        text = report_html(replace(now, trials=now.trials[:count]), START)
    drawn = json.loads(Page(text).texts["figures"])["figures"]
    assert len([name for name in drawn if name.startswith("front-")]) == 11
    assert "matrix" not in drawn, "more than six objectives cannot be read at one glance"


def test_a_study_with_failed_trials_only_has_a_report_that_says_why(tmp_path: Path) -> None:
    failed = asked(0, candidate(0.5), "anchor:svd").failed(Cause.UNSUPPORTED, "tied weights", START)
    out = tmp_path / "r.html"
    with Store.open(f"sqlite:///{tmp_path / 'failed.db'}") as store:
        store.create_study(study_named("failed"), {}, START)
        write_trial(store, store.acquire("failed", "test", 60.0, START), failed)
        write_files(store, "failed", out)
    page = Page(out.read_text("utf-8"))
    assert "tied weights" in page.texts["td"]
    assert "No completed trial has both metrics yet (1 failed)." in page.texts["figures"]
    assert "No completed trial has all objectives yet." in page.texts["figures"]
    assert "Members of the front" not in page.texts["h2"]


# Files


def test_the_report_and_its_data_are_written_together(store_url: str, tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("r.html", "t.csv", "t.json", "t.parquet")]
    with Store.open(store_url, read_only=True) as store:
        write_files(store, "halfway", places[0], places[1:])
        assert places[1].read_bytes() == encoded(read(store, "halfway"), "csv").content
    assert sorted(tmp_path.iterdir()) == sorted(places)
    assert len(json.loads(places[2].read_text("utf-8"))) == 30
    assert places[3].read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize(
    ("out", "data", "said"),
    [
        (None, (), "no file is named"),
        ("r.html", ("no/t.csv",), "there is no directory"),
        ("r.html", (".",), "is a directory"),
        ("r.html", ("t.xlsx",), "does not say what to write"),
        ("r.html", ("t.csv", "t.csv"), "is named twice"),
        ("r.csv", ("r.csv",), "is named twice"),
        (None, ("there.csv",), "is there already"),
    ],
)
def test_a_wrong_place_is_refused_before_any_file_is_written(
    store_url: str, tmp_path: Path, out: str | None, data: tuple[str, ...], said: str
) -> None:
    there = tmp_path / "there.csv"
    there.write_text("precious")
    with Store.open(store_url, read_only=True) as store, pytest.raises(UsageError, match=said):
        write_files(store, "halfway", tmp_path / out if out else None, [tmp_path / name for name in data])
    assert list(tmp_path.iterdir()) == [there]
    assert there.read_text() == "precious"


def test_a_disk_that_is_full_at_the_second_file_leaves_neither(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, out = Path.write_bytes, tmp_path / "r.html"
    out.write_text("precious")

    def full(self: Path, content: bytes) -> int:
        if ".html" in self.name:
            write(self, content[:100])
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with Store.open(store_url, read_only=True) as store, pytest.raises(HpoError, match="No space left"):
        write_files(store, "halfway", out, [tmp_path / "t.csv"], force=True)
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_text() == "precious"


def test_a_place_without_permission_is_an_error_that_names_it(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refused)
    said = r"cannot write .*t\.csv: Permission denied"
    with Store.open(store_url, read_only=True) as store, pytest.raises(HpoError, match=said) as caught:
        write_files(store, "halfway", None, [tmp_path / "t.csv"])
    assert "--data" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing_behind(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with Store.open(store_url, read_only=True) as store, pytest.raises(Exception, match="No space left"):
        write_files(store, "halfway", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
