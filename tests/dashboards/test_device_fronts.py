"""A study measured on two devices has a front for each on its page, and one measured on one has none."""

from pathlib import Path

import pytest
from dash import html

from dashboards.device_fronts import device_section, device_view, rows
from dashboards.routes import Axes
from dashboards.source import StudySource
from hpo.metric import METRICS, Source
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.study import Study
from hpo.trial import Measurement, StageTime, Trial

OLD, NEW = "cpu: old", "cpu: <b>new</b>"
AXES = Axes(x="prefill_latency", y="perplexity")


def make_study() -> Study:
    limited = [{"metric": "perplexity", "limit": 10.0}, {"metric": "prefill_latency", "limit": 20.0}]
    return Study.from_mapping(
        {
            "version": 1,
            "name": "moved",
            "model": "reference",
            "objectives": limited,
            "space": {"factorise.keep_ratio": {"type": "float", "low": 0.0, "high": 1.0}},
            "budget": {"trials": 5},
        }
    )


def waiting(number: int) -> Trial:
    return Trial(number, Candidate.of({"factorise.keep_ratio": number / 10}), "sobol", f"plan{number}")


def measured(number: int, perplexity: float, latency: float | None, device: str) -> Trial:
    values = {"perplexity": perplexity} | ({} if latency is None else {"prefill_latency": latency})
    figures = [
        Measurement(name, value, METRICS[name].unit, Source.MEASURED, device=device)
        for name, value in values.items()
    ]
    trial = waiting(number).started("w", 1.0)
    return trial.advanced(StageTime("time", 1.0), figures).completed(2.0)


BY_DEVICE = {
    OLD: (measured(0, 5.0, 12.0, OLD), measured(1, 6.0, 9.0, OLD), measured(2, 7.0, 9.5, OLD)),
    NEW: (measured(0, 5.0, 3.0, NEW), measured(1, 6.0, 3.5, NEW), measured(2, 7.0, None, NEW)),
}


def test_each_device_has_the_front_of_its_own_figures() -> None:
    view = device_view(make_study(), BY_DEVICE, AXES)
    assert [(line.name, sorted(line.numbers)) for line in view.lines] == [(OLD, [0, 1]), (NEW, [0])]


def test_the_table_says_the_same_as_the_figure() -> None:
    old, new = rows(make_study(), BY_DEVICE)
    # Old: (10-5)(20-12) + (10-6)(12-9) of 10 x 20. New: (10-5)(20-3).
    assert old == (OLD, "3", "0, 1", "0.26")
    assert new == (NEW, "2", "0", "0.425")


def test_a_metric_that_is_no_objective_is_replaced_by_the_objectives() -> None:
    view = device_view(make_study(), BY_DEVICE, Axes(x="macs", y="perplexity"))
    assert (view.x.metric, view.y.metric) == ("prefill_latency", "perplexity")


@pytest.fixture
def source(tmp_path: Path) -> StudySource:
    url = f"sqlite:///{tmp_path}/study.db"
    with Store.open(url) as store:
        store.create_study(make_study(), {}, 1.0)
        lease = store.acquire("moved", "me", 1e9, 1.0)
        for trial in BY_DEVICE[OLD]:
            store.add_trial(lease, waiting(trial.number), (), 1.0)
            store.save_trial(lease, trial, EventKind.COMPLETED, 2.0)
    return StudySource(url)


def remeasure(source: StudySource) -> None:
    with Store.open(source._url) as store:
        lease = store.acquire("moved", "me", 1e9, 1.0)
        first = store.trial("moved", 0)
        again = first.reopened(first.measurements[:1])
        store.save_trial(lease, again, EventKind.REOPENED, 3.0)
        figure = Measurement("prefill_latency", 3.0, "ms", Source.MEASURED, device=NEW)
        done = again.started("w", 3.0).advanced(StageTime("time", 1.0), [figure]).completed(4.0)
        store.save_trial(lease, done, EventKind.COMPLETED, 4.0)


def test_a_study_of_one_device_has_no_such_section(source: StudySource) -> None:
    assert device_section(source, source.snapshot("moved"), AXES) is None


def test_a_study_of_two_devices_shows_both_and_names_them_as_text(source: StudySource) -> None:
    remeasure(source)
    section = device_section(source, source.snapshot("moved"), AXES)
    assert isinstance(section, html.Section)
    text = str(section.to_plotly_json())
    assert "Front by device" in text
    assert OLD in text
    assert "&lt;b&gt;new" in text, "in the figure a name is text"
