"""The page of a study: what can be had, what it costs, and how to take it home.

The server draws the front once, thinned, so that there is something to see at once. Then the browser has
the trials (`dashboards.feed`) and does the rest itself (``assets/front_7_page.js``): axes, limits, table.
"""

import json
from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from dashboards.actions import study_actions
from dashboards.caveats import caveats
from dashboards.device_fronts import device_section
from dashboards.feed import metrics_of
from dashboards.figures import GRAPH_CONFIG, blank
from dashboards.frame import framed
from dashboards.front import front_view
from dashboards.front_figure import draw_front
from dashboards.routes import Axes, DataRoute
from dashboards.source import Snapshot, StudySource
from dashboards.summary import FAILURE_HEAD, failure_rows, front_trials, glance, progress
from dashboards.trial_table import trial_grid
from hpo.errors import HpoError
from hpo.store.values import Request
from hpo.trial import Trial

_EVERY_MS = 2000
_FIRST_LOOK = 300
"""Dominated trials that the server draws; the browser draws them all."""


def layout(source: StudySource, name: str, search: str | None, allow_actions: bool = False) -> html.Div:
    """Return the page as it stands, its front in the two metrics that the address names.

    Raises:
        HpoError: there is no such study, or the store cannot be read.
    """
    now = source.snapshot(name)
    axes = Axes.read(search, metrics_of(now.record.study, now.trials[:200]))
    return framed(
        now,
        "front",
        dcc.Store(id="front-study", data=name),
        dcc.Store(id="front-seen", data=_seen(now)),
        dcc.Store(id="front-drawn"),
        dcc.Interval(id="front-tick", interval=_EVERY_MS),
        html.Div(id="study-notice"),
        html.Div(head(now), id="study-head"),
        html.Div(
            [
                html.Div(id="front-notice"),
                _front_section(source.kept(now, ("front", axes.x, axes.y), lambda: first_look(now, axes))),
                _take_section(),
                _all_section(now),
                device_section(source, now, axes),
                _trials_section(now),
            ],
            id="front",
            **_told(name),
        ),
        html.Div(failures(now.trials), id="study-failures"),
        *([study_actions(now.record.study.space)] if allow_actions else []),
    )


def _seen(now: Snapshot) -> str:
    """Return what differs whenever the head of the page would."""
    record = now.record
    return f"{now.revision}:{record.state}:{record.requested}:{record.hours}:{record.message}"


def _told(name: str) -> dict[str, Any]:
    """Return what the browser's script is told of the page."""
    return {
        "data-study": name,
        "data-feed": DataRoute(name, "trials").path,
        "data-config": json.dumps(dict(GRAPH_CONFIG)),
    }


def head(now: Snapshot) -> list[Component]:
    """Return what stands above the figures: question, progress, and what to be careful about."""
    study, record = now.record.study, now.record
    parts: list[Component] = []
    if record.requested is not Request.NONE:
        parts.append(elements.notice(f"Asked to {record.requested}; running trials are seen to first."))
    if record.message:
        parts.append(elements.notice(record.message))
    if study.question:
        parts.append(html.P(study.question, className="question"))
    parts += [elements.progress(*progress(now)), elements.tiles(glance(now))]
    if said := caveats(study.objectives, now.trials, front_trials(now)):
        parts.append(html.Ul([html.Li(sentence) for sentence in said], className="caveats"))
    return parts


def failures(trials: Sequence[Trial]) -> list[Component]:
    """Return failures by cause, each with the words of its last one; nothing where nothing failed."""
    rows = failure_rows(trials)
    return [elements.section("Failures", elements.table(FAILURE_HEAD, rows))] if rows else []


def _front_section(figure: Any) -> html.Section:
    return elements.section(
        "Front",
        html.Div(id="front-controls", className="controls"),
        html.Div(
            [
                html.Div(
                    [
                        elements.graph("front-graph", figure),
                        html.P(id="front-aside", className="hint", role="status"),
                    ],
                    className="front-figure",
                ),
                html.Div([html.H3("Limits"), html.Div(id="front-limits")], className="front-limits"),
            ],
            className="front-split",
        ),
    )


def first_look(now: Snapshot, axes: Axes) -> Any:
    """Return the figure of the front in two metrics, few of the dominated trials beside it."""
    if axes.x == axes.y:
        return blank("Choose two different metrics to see how one is traded for the other.", 520)
    return draw_front(front_view(now.record.study.objectives, now.trials, axes.x, axes.y, _FIRST_LOOK))


def _take_section() -> html.Section:
    return elements.section("Take it home", html.Div(id="front-recommended"))


def _all_section(now: Snapshot) -> html.Section:
    if len(now.record.study.objectives) < 2:
        return elements.section("All objectives", html.P("There is one objective.", className="hint"))
    return elements.section(
        "All objectives at once",
        html.Div(id="front-parallel", className="figure wide", tabIndex="0"),
        html.Details(
            [html.Summary("Every pair of objectives"), html.Div(id="front-matrix", className="figure")],
            id="front-matrix-box",
        ),
        hint="One line is one trial, better is up on every axis. Drag along an axis to set a limit there.",
    )


def _trials_section(now: Snapshot) -> html.Section:
    name = now.record.study.name
    links = [
        html.Li(html.A(kind.upper(), href=DataRoute(name, f"download.{kind}").path, download=""))
        for kind in ("csv", "json", "parquet")
    ]
    return elements.section(
        "Trials",
        html.Div(id="trial-slot", className="trial-slot"),
        html.Ul([html.Li("Download all:"), *links], className="downloads"),
        hint="Those that keep the limits and are selected in the figure. Click a row, or press the space bar "
        "on it, to open the trial.",
    )


def register(app: Dash, source: StudySource) -> None:
    """Keep the head of the page up to date; the rest is the browser's."""

    @app.callback(
        Output("study-notice", "children"),
        Output("study-head", "children"),
        Output("study-failures", "children"),
        Output("study-state", "children"),
        Output("front-seen", "data"),
        Input("front-tick", "n_intervals"),
        State("front-study", "data"),
        State("front-seen", "data"),
        prevent_initial_call=True,
    )
    def refresh(_tick: int, name: str, seen: str) -> tuple[object, ...]:
        try:
            now = source.snapshot(name)
        except HpoError as error:
            return (elements.alert(error), *[no_update] * 4)
        if _seen(now) == seen:
            return None, *[no_update] * 4
        return None, head(now), failures(now.trials), elements.badge(now.record.state), _seen(now)

    @app.callback(
        Output("trial-slot", "children"),
        Input("front-drawn", "data"),
        State("front-study", "data"),
        prevent_initial_call=True,
    )
    def bring_the_table(_drawn: bool, name: str) -> object:
        # The grid's script is large: it comes once the front is on the screen.
        try:
            return trial_grid("trial-table", source.store().study(name).study)
        except HpoError as error:
            return elements.alert(error)

    app.clientside_callback(
        "(rows, study) => rows && rows.length"
        " ? `/study/${encodeURIComponent(study)}/trial/${rows[0].number}` : dash_clientside.no_update",
        Output("url", "href"),
        Input("trial-table", "selectedRows"),
        State("front-study", "data"),
        prevent_initial_call=True,
    )
