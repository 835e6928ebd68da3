"""The page of a study: its front in any two metrics, its hypervolume, its failures, all its trials."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from dashboards.caveats import caveats
from dashboards.figures import blank
from dashboards.front import front_view
from dashboards.front_figure import draw_front
from dashboards.hypervolume import Against, draw_hypervolume, hypervolume_curve
from dashboards.routes import Axes, StudyRoute, TrialRoute
from dashboards.source import Snapshot, StudySource
from dashboards.summary import (
    FAILURE_HEAD,
    KNEE,
    MODEL_HEAD,
    MODEL_HINT,
    failure_rows,
    glance,
    model_rows,
    progress,
)
from dashboards.trial_rows import trial_rows
from dashboards.trial_table import trial_grid
from hpo.errors import HpoError
from hpo.format import words
from hpo.metric import METRICS
from hpo.skill import Skill
from hpo.store.values import Request
from hpo.study import Study
from hpo.trial import Trial

_EVERY_MS = 2000
_AGAINST: tuple[Against, Against] = ("trials", "hours")


def layout(source: StudySource, name: str, search: str | None) -> html.Div:
    """Return the page as it stands, its front in the two metrics that the address names.

    Raises:
        HpoError: there is no such study, or the store cannot be read.
    """
    now = source.snapshot(name)
    metrics = metrics_of(now.record.study, now.trials)
    axes = Axes.read(search, metrics)
    return html.Div(
        [
            # The shell has a Location too; this one is here for the axes, and goes with the page.
            dcc.Location(id="study-url", refresh=False),
            dcc.Store(id="study-name", data=name),
            dcc.Store(id="study-seen", data=now.revision),
            dcc.Interval(id="study-tick", interval=_EVERY_MS),
            elements.crumbs(("Studies", "/"), (name, "")),
            html.Div(id="study-notice"),
            html.Div(head(now), id="study-head"),
            _front_section(now, metrics, axes),
            _hypervolume_section(now),
            html.Div(model(now.skills), id="study-model"),
            html.Div(failures(now.trials), id="study-failures"),
            elements.section(
                "Trials",
                trial_grid("trial-table", now.record.study, now.trials),
                hint="Click a row, or press the space bar on it, to open the trial.",
            ),
        ]
    )


def metrics_of(study: Study, trials: Sequence[Trial]) -> list[str]:
    """Return the metrics a front can be looked at in: the objectives, then whatever else was measured."""
    measured = {m.metric for t in trials for m in t.measurements if m.metric in METRICS}
    objectives = [o.metric for o in study.objectives]
    return [*objectives, *sorted(measured.difference(objectives))]


def head(now: Snapshot) -> list[Component]:
    """Return what stands above the figures: state, question, progress, and what to be careful about."""
    study, record = now.record.study, now.record
    title = html.Div([html.H1(study.name), elements.badge(record.state)], className="title")
    parts: list[Component] = [title]
    if record.requested is not Request.NONE:
        parts.append(elements.notice(f"Asked to {record.requested}; running trials are seen to first."))
    if record.message:
        parts.append(elements.notice(record.message))
    if study.question:
        parts.append(html.P(study.question, className="question"))
    parts += [elements.progress(*progress(now)), elements.tiles(glance(now))]
    if said := caveats(study.objectives, now.trials):
        parts.append(html.Ul([html.Li(sentence) for sentence in said], className="caveats"))
    return parts


def failures(trials: Sequence[Trial]) -> list[Component]:
    """Return failures by cause, each with the words of its last one; nothing where nothing failed."""
    rows = failure_rows(trials)
    return [elements.section("Failures", elements.table(FAILURE_HEAD, rows))] if rows else []


def model(skills: Sequence[Skill]) -> list[Component]:
    """Return how good the search's model is where fronts are; nothing while there is none."""
    if not skills:
        return []
    return [
        elements.section(
            "The search's model", elements.table(MODEL_HEAD, model_rows(skills)), hint=MODEL_HINT
        )
    ]


def _front_section(now: Snapshot, metrics: Sequence[str], axes: Axes) -> html.Section:
    figure, aside = front_figure(now, axes)
    return elements.section(
        "Front",
        html.Div(
            [_axis("axis-x", "across", metrics, axes.x), _axis("axis-y", "up", metrics, axes.y)],
            className="controls",
        ),
        elements.graph("front-graph", figure),
        html.P(aside, id="front-aside", className="hint"),
    )


def _axis(name: str, label: str, metrics: Sequence[str], value: str) -> html.Div:
    dropdown = dcc.Dropdown(
        id=name, options=_options(metrics), value=value, clearable=False, searchable=False
    )
    return html.Div([html.Label(label, htmlFor=name), dropdown], className="control")


def _options(metrics: Sequence[str]) -> list[dict[str, str]]:
    return [{"label": words(name), "value": name} for name in metrics]


def front_figure(now: Snapshot, axes: Axes) -> tuple[go.Figure, str]:
    """Return the figure of the front and a sentence on what it does not show."""
    study = now.record.study
    if axes.x == axes.y:
        return blank("Choose two different metrics to see how one is traded for the other.", 520), ""
    view = front_view(study.objectives, now.trials, axes.x, axes.y)
    knee = "" if view.knee is None else f"{KNEE} "
    hidden = ", ".join(f"{count} {reason}" for reason, count in view.hidden.items())
    return draw_front(view), knee + (f"Not shown: {hidden}." if hidden else "")


def _hypervolume_section(now: Snapshot) -> html.Section:
    figure, caption = hypervolume_figure(now, "trials")
    choice = dcc.RadioItems(
        id="hypervolume-against",
        options=[{"label": f"against {'worker hours' if a == 'hours' else a}", "value": a} for a in _AGAINST],
        value="trials",
        inline=True,
        className="radio",
    )
    return elements.section(
        "Hypervolume",
        choice,
        elements.graph("hypervolume-graph", figure),
        html.P(caption, id="hypervolume-caption", className="hint"),
    )


def hypervolume_figure(now: Snapshot, against: Against) -> tuple[go.Figure, str]:
    """Return the figure of the hypervolume and what it is a share of."""
    curve = hypervolume_curve(now.record.study.objectives, now.trials)
    return draw_hypervolume(curve, against), "" if curve is None else curve.caption


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date, and let it answer."""
    _register_refresh(app, source)
    _register_figures(app, source)
    _register_axes(app)
    _register_links(app)


def _register_refresh(app: Dash, source: StudySource) -> None:
    @app.callback(
        Output("study-notice", "children"),
        Output("study-head", "children"),
        Output("study-seen", "data"),
        Output("study-model", "children"),
        Output("study-failures", "children"),
        Output("trial-table", "rowData"),
        Output("axis-x", "options"),
        Output("axis-y", "options"),
        Input("study-tick", "n_intervals"),
        State("study-name", "data"),
        State("study-seen", "data"),
        prevent_initial_call=True,
    )
    def refresh(_tick: int, name: str, seen: str) -> tuple[object, ...]:
        try:
            now = source.snapshot(name)
        except HpoError as error:
            return (elements.alert(error), *[no_update] * 7)
        if now.revision == seen:
            return (None, head(now), *[no_update] * 6)
        options = _options(metrics_of(now.record.study, now.trials))
        rows = trial_rows(now.record.study, now.trials)
        below = model(now.skills), failures(now.trials)
        return (None, head(now), now.revision, *below, rows, options, options)


def _register_figures(app: Dash, source: StudySource) -> None:
    @app.callback(
        Output("front-graph", "figure"),
        Output("front-aside", "children"),
        Input("study-seen", "data"),
        Input("axis-x", "value"),
        Input("axis-y", "value"),
        State("study-name", "data"),
        prevent_initial_call=True,
    )
    def redraw_front(_seen: str, x: str, y: str, name: str) -> tuple[object, object]:
        try:
            return front_figure(source.snapshot(name), Axes(x, y))
        except HpoError:
            return no_update, no_update  # the next refresh says what is wrong

    @app.callback(
        Output("hypervolume-graph", "figure"),
        Output("hypervolume-caption", "children"),
        Input("study-seen", "data"),
        Input("hypervolume-against", "value"),
        State("study-name", "data"),
        prevent_initial_call=True,
    )
    def redraw_hypervolume(_seen: str, against: Against, name: str) -> tuple[object, object]:
        try:
            return hypervolume_figure(source.snapshot(name), against)
        except HpoError:
            return no_update, no_update


def _register_axes(app: Dash) -> None:
    @app.callback(
        Output("axis-x", "value"),
        Output("axis-y", "value"),
        Output("study-url", "search"),
        Input("axis-x", "value"),
        Input("axis-y", "value"),
        Input("study-url", "search"),
        State("study-url", "pathname"),
        State("study-name", "data"),
        State("axis-x", "options"),
        prevent_initial_call=True,
    )
    def keep_axes_and_address_alike(
        x: str, y: str, search: str, path: str, name: str, options: Sequence[Mapping[str, str]]
    ) -> tuple[object, object, object]:
        if path != StudyRoute(name).path:
            return no_update, no_update, no_update  # on the way to another page
        if ctx.triggered_id == "study-url":
            asked = Axes.read(search, [option["value"] for option in options])
            return asked.x, asked.y, no_update
        return no_update, no_update, Axes(x, y).search


def _register_links(app: Dash) -> None:
    @app.callback(
        Output("url", "href"),
        Input("trial-table", "selectedRows"),
        Input("front-graph", "clickData"),
        Input("hypervolume-graph", "clickData"),
        State("study-name", "data"),
        prevent_initial_call=True,
    )
    def open_trial(
        rows: list[dict[str, int]] | None, front: object, hypervolume: object, name: str
    ) -> object:
        picked = {"front-graph": front, "hypervolume-graph": hypervolume}.get(str(ctx.triggered_id))
        number = _clicked(picked) if picked else (rows[0]["number"] if rows else None)
        return no_update if number is None else TrialRoute(name, number).path


def _clicked(data: object) -> int | None:
    """Return the trial behind a point of a figure; None for a line."""
    match data:
        case {"points": [{"customdata": int(number)}, *_]}:
            return number
    return None
