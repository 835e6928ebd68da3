import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from dashboards.report import report_html, write_report
from dashboards.source import read
from hpo.errors import NotFound, UsageError
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import Cause
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
        "hypervolume",
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
            write_report(store, "halfway", out)
        assert out.read_text() == "precious"
        write_report(store, "halfway", out, force=True)
    assert out.read_text("utf-8").startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(("place", "said"), [(".", "is a directory"), ("no/r.html", "there is no directory")])
def test_a_place_that_cannot_be_written_is_an_error(
    store_url: str, tmp_path: Path, place: str, said: str
) -> None:
    with Store.open(store_url, read_only=True) as store, pytest.raises(UsageError, match=said):
        write_report(store, "halfway", tmp_path / place)


def test_an_unknown_study_leaves_no_file(store_url: str, tmp_path: Path) -> None:
    with Store.open(store_url, read_only=True) as store, pytest.raises(NotFound, match="no study 'other'"):
        write_report(store, "other", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing_behind(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with Store.open(store_url, read_only=True) as store, pytest.raises(Exception, match="No space left"):
        write_report(store, "halfway", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
