"""A study that was measured on several devices: its front on each, side by side, never in one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dash import html

from dashboards import elements
from dashboards.comparison import Run, common_box, run_of
from dashboards.comparison_figure import FrontsView, draw_fronts, fronts_view
from dashboards.routes import Axes
from dashboards.source import Snapshot, StudySource
from hpo.format import count_text, number_text
from hpo.problem import on_front
from hpo.study import Study
from hpo.trial import Trial

_HEAD = ("device", "trials measured there", "members of its front", "hypervolume in its own box")


def runs_by_device(study: Study, by_device: Mapping[str, Sequence[Trial]]) -> list[Run]:
    """Return the study once for each device, named after it, in the order given."""
    return [
        replace(run_of(study, trials, study.objectives), name=device) for device, trials in by_device.items()
    ]


def device_view(study: Study, by_device: Mapping[str, Sequence[Trial]], axes: Axes) -> FrontsView:
    """Return the fronts in two metrics, device by device; in the first two objectives where one is none."""
    metrics = [objective.metric for objective in study.objectives]
    x, y = (axes.x, axes.y) if {axes.x, axes.y} <= set(metrics) else (metrics[1], metrics[0])
    runs = runs_by_device(study, by_device)
    return fronts_view(runs, study.objectives, common_box(runs), x, y, bands=False)


def rows(study: Study, by_device: Mapping[str, Sequence[Trial]]) -> list[tuple[str, ...]]:
    """Return device, trials, members of the front and hypervolume, as text."""
    found: list[tuple[str, ...]] = []
    for run, trials in zip(runs_by_device(study, by_device), by_device.values(), strict=True):
        members = [t.number for t, on in zip(trials, on_front(study.objectives, trials), strict=True) if on]
        inside = run.losses[run.inside(run.box)]
        share = "not known yet" if run.box is None else number_text(run.box.hypervolume(inside), 4)
        there = int(run.inside(None).sum())
        found.append((run.name, str(there), ", ".join(map(str, members)) or "none", share))
    return found


def device_section(source: StudySource, now: Snapshot, axes: Axes) -> html.Section | None:
    """Return the section of a study's page; None where all was measured on one device.

    Raises:
        HpoError: the store cannot be read.
    """
    study, store = now.record.study, source.store()
    devices = store.devices(study.name)
    if len(devices) < 2 or len(study.objectives) < 2 or axes.x == axes.y:
        return None
    by_device = {device.name: store.trials_on(study.name, device.name) for device in devices}
    view = device_view(study, by_device, axes)
    return elements.section(
        "Front by device",
        elements.graph("front-devices", draw_fronts(view)),
        elements.table(_HEAD, rows(study, by_device)),
        hint=f"Measured on {count_text(len(devices), 'device')}. The page above shows the one that the study "
        "runs on now; what was timed elsewhere counts only here.",
    )
