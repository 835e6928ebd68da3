"""The search page of a study: what it has brought, what more of it would bring, and whether to trust it."""

from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update

from dashboards import elements
from dashboards.frame import framed
from dashboards.hypervolume import AGAINST, Against, HypervolumeCurve
from dashboards.importance import worth_again
from dashboards.outlook import ASSUMPTION, NoOutlook
from dashboards.routes import SearchRoute, TrialRoute
from dashboards.search_choice import SearchChoice
from dashboards.search_progress import KeptProgress, SearchProgress, left_of
from dashboards.search_sections import (
    control,
    importance_parts,
    listed,
    model_mark,
    model_parts,
    slice_parts,
    stop_parts,
)
from dashboards.slices import parameters_of
from dashboards.source import Snapshot, StudySource
from hpo.errors import HpoError
from hpo.format import words
from hpo.trial import TrialState

_EVERY_MS = 2000
_NEVER = -1
"""Completed trials at which importance was last computed, before it ever was."""

_KEPT = KeptProgress()


def layout(source: StudySource, name: str, search: str | None) -> html.Div:
    """Return the page as it stands.

    Raises:
        HpoError: there is no such study, or the store cannot be read.
    """
    now = source.snapshot(name)
    chosen = SearchChoice.read(search, _offered(now))
    return framed(
        now,
        "search",
        html.Div(
            [
                # One Location keeps what is chosen in the address, the other one leaves for a trial.
                dcc.Location(id="search-address", refresh=False),
                dcc.Location(id="search-go", refresh="callback-nav"),
                dcc.Store(id="search-name", data=name),
                dcc.Store(id="search-seen", data=now.revision),
                dcc.Store(id="search-model-mark", data=model_mark(now.skills)),
                dcc.Store(id="search-importance-at", data=_NEVER),
                dcc.Interval(id="search-tick", interval=_EVERY_MS),
            ]
        ),
        html.Div(id="search-notice"),
        _progress_section(now, chosen),
        elements.section("The search's model", html.Div(model_parts(now.skills), id="search-model")),
        # It takes a while, so it comes after the page, and seldom.
        elements.section(
            "Importance of the parameters",
            html.Div(html.P("Being computed …", className="awaited"), id="search-importance"),
        ),
        _slice_section(now, chosen),
        elements.section("Trials stopped early", html.Div(stop_parts(now.trials), id="search-stops")),
    )


def _offered(now: Snapshot) -> dict[str, list[str]]:
    """Return what can be chosen on the page of a study: field of `SearchChoice` -> values."""
    study = now.record.study
    return {
        "over": list(AGAINST),
        "more": list(_KEPT.of(now).options(left_of(now))),
        "parameter": parameters_of(study.space, now.trials),
        "objective": [o.metric for o in study.objectives],
    }


def _progress_section(now: Snapshot, chosen: SearchChoice) -> html.Section:
    progress, left = _KEPT.of(now), left_of(now)
    options = tuple(progress.options(left).items())
    axis = next(axis for axis in AGAINST if axis == chosen.over)
    over = dcc.RadioItems(
        id="search-against",
        options=listed([(a, _axis_words(a, progress.curve)) for a in AGAINST]),
        value=chosen.over,
        inline=True,
        className="radio",
    )
    return elements.section(
        "Hypervolume",
        html.Div(
            [
                html.Fieldset([html.Legend("Over"), over], className="radio-set"),
                control("search-more", "What would more buy?", options, chosen.more),
            ],
            className="controls",
        ),
        elements.graph("search-hypervolume", progress.figure(left, axis, chosen.more)),
        html.P(progress.words, id="search-now"),
        html.P(left.words, id="search-left"),
        html.Div(outlook_words(progress, now, chosen.more), id="search-outlook"),
        html.P("" if progress.curve is None else progress.curve.caption, className="hint"),
    )


def _axis_words(against: Against, curve: HypervolumeCurve | None) -> str:
    work = "worker hours" if curve is None else curve.work
    return {"trials": "finished trials", "seconds": "the clock", "hours": work}[against]


def outlook_words(progress: SearchProgress, now: Snapshot, more: str) -> list[html.P]:
    """Return what so much more work would buy, and what that assumes; or why it cannot be said."""
    ahead = progress.outlook(left_of(now), more)
    if isinstance(ahead, NoOutlook):
        return [html.P(ahead.why)]
    return [html.P(ahead.words), html.P(ASSUMPTION, className="hint")]


def _slice_section(now: Snapshot, chosen: SearchChoice) -> html.Section:
    study = now.record.study
    names = parameters_of(study.space, now.trials)
    figure, said = slice_parts(now, chosen.parameter, chosen.objective)
    metrics = [(o.metric, words(o.metric)) for o in study.objectives]
    return elements.section(
        "Slices",
        html.Div(
            [
                control("search-parameter", "Parameter", [(name, name) for name in names], chosen.parameter),
                control("search-objective", "Objective", metrics, chosen.objective),
            ],
            className="controls",
        ),
        elements.graph("search-slice", figure),
        html.P(said, id="search-slice-words", className="hint"),
        hint="One parameter against one objective, over all completed trials that have both.",
    )


def _completed(now: Snapshot) -> int:
    return sum(trial.state is TrialState.COMPLETED for trial in now.trials)


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date, and let it answer."""
    _register_refresh(app, source)
    _register_progress(app, source)
    _register_importance(app, source)
    _register_slice(app, source)
    _register_address(app, source)
    _register_links(app)


def _register_refresh(app: Dash, source: StudySource) -> None:
    @app.callback(
        Output("search-notice", "children"),
        Output("search-left", "children"),
        Output("search-seen", "data"),
        Output("search-model", "children"),
        Output("search-model-mark", "data"),
        Output("search-stops", "children"),
        Output("search-parameter", "options"),
        Output("study-state", "children", allow_duplicate=True),
        Input("search-tick", "n_intervals"),
        State("search-name", "data"),
        State("search-seen", "data"),
        State("search-model-mark", "data"),
        prevent_initial_call=True,
    )
    def refresh(_tick: int, name: str, seen: str, mark: str) -> tuple[object, ...]:
        try:
            now = source.snapshot(name)
        except HpoError as error:
            return (elements.alert(error), *[no_update] * 7)
        left, state = left_of(now).words, elements.badge(now.record.state)
        if now.revision == seen:
            return (None, left, *[no_update] * 5, state)
        judged: tuple[object, object] = (no_update, no_update)
        if model_mark(now.skills) != mark:
            judged = (model_parts(now.skills), model_mark(now.skills))
        names = parameters_of(now.record.study.space, now.trials)
        options = listed([(name, name) for name in names])
        return (None, left, now.revision, *judged, stop_parts(now.trials), options, state)


def _register_progress(app: Dash, source: StudySource) -> None:
    @app.callback(
        Output("search-hypervolume", "figure"),
        Output("search-now", "children"),
        Output("search-outlook", "children"),
        Output("search-more", "options"),
        Input("search-seen", "data"),
        Input("search-against", "value"),
        Input("search-more", "value"),
        State("search-name", "data"),
        prevent_initial_call=True,
    )
    def redraw(_seen: str, against: Against, more: str, name: str) -> tuple[object, ...]:
        try:
            now = source.snapshot(name)
        except HpoError:
            return (no_update,) * 4  # the next refresh says what is wrong
        progress, left = _KEPT.of(now), left_of(now)
        options = listed(tuple(progress.options(left).items()))
        figure = progress.figure(left, against, more)
        return figure, progress.words, outlook_words(progress, now, more), options


def _register_importance(app: Dash, source: StudySource) -> None:
    @app.callback(
        Output("search-importance", "children"),
        Output("search-importance-at", "data"),
        Input("search-seen", "data"),
        State("search-name", "data"),
        State("search-importance-at", "data"),
    )
    def judge_again(_seen: str, name: str, before: int) -> tuple[object, object]:
        try:
            now = source.snapshot(name)
        except HpoError:
            return no_update, no_update
        completed = _completed(now)
        if not worth_again(completed, before):
            return no_update, no_update
        return importance_parts(now), completed


def _register_slice(app: Dash, source: StudySource) -> None:
    @app.callback(
        Output("search-slice", "figure"),
        Output("search-slice-words", "children"),
        Input("search-seen", "data"),
        Input("search-parameter", "value"),
        Input("search-objective", "value"),
        State("search-name", "data"),
        prevent_initial_call=True,
    )
    def redraw_slice(_seen: str, parameter: str, metric: str, name: str) -> tuple[object, object]:
        try:
            return slice_parts(source.snapshot(name), parameter, metric)
        except HpoError:
            return no_update, no_update


def _register_address(app: Dash, source: StudySource) -> None:
    @app.callback(
        Output("search-against", "value"),
        Output("search-more", "value"),
        Output("search-parameter", "value"),
        Output("search-objective", "value"),
        Output("search-address", "search"),
        Input("search-against", "value"),
        Input("search-more", "value"),
        Input("search-parameter", "value"),
        Input("search-objective", "value"),
        Input("search-address", "search"),
        State("search-address", "pathname"),
        State("search-name", "data"),
        prevent_initial_call=True,
    )
    def keep_choice_and_address_alike(
        over: str, more: str, parameter: str, objective: str, search: str, path: str, name: str
    ) -> tuple[object, ...]:
        here = SearchChoice(over, more, parameter, objective)
        if path != SearchRoute(name).path:
            return (no_update,) * 5  # on the way to another page
        if ctx.triggered_id != "search-address":
            return (*[no_update] * 4, here.search)
        try:
            asked = SearchChoice.read(search, _offered(source.snapshot(name)))
        except HpoError:
            return (no_update,) * 5
        pairs = zip(vars(asked).values(), vars(here).values(), strict=True)
        return (*(new if new != old else no_update for new, old in pairs), no_update)


def _register_links(app: Dash) -> None:
    @app.callback(
        Output("search-go", "href"),
        Input("search-hypervolume", "clickData"),
        Input("search-slice", "clickData"),
        State("search-name", "data"),
        prevent_initial_call=True,
    )
    def open_trial(_curve: object, _slice: object, name: str) -> object:
        number = _clicked(ctx.triggered[0]["value"])
        return no_update if number is None else TrialRoute(name, number).path


def _clicked(data: Any) -> int | None:
    """Return the trial behind a point of a figure; None for a line."""
    match data:
        case {"points": [{"customdata": int(number)}, *_]}:
            return number
    return None
