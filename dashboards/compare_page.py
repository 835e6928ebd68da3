"""Studies side by side: their fronts in one figure, and what each adds to the others in one box."""

from collections.abc import Sequence
from typing import Any

from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from dashboards.attainment import FEWEST
from dashboards.comparing import Compared, compared, seen_of
from dashboards.comparison import Kind
from dashboards.comparison_figure import draw_fronts
from dashboards.comparison_parts import SHARE_HEAD, box_text, cut_text, share_rows
from dashboards.comparison_view import KINDS, CompareView
from dashboards.figures import blank
from dashboards.routes import CompareRoute, TrialRoute, route
from dashboards.source import StudySource
from hpo.errors import HpoError
from hpo.format import words

_EVERY_MS = 2000
_CUTS: dict[Kind, str] = {
    "all": "as they stand",
    "hours": "cut to the same worker hours",
    "trials": "cut to the same number of trials",
}
_STEPS = 200
"""Places of the slider."""


def layout(source: StudySource, search: str | None) -> html.Div:
    """Return the page as it stands; the query part of its address names the studies."""
    view = CompareView.read(search)
    here = compared(source, view)
    figure, aside = _figure(here)
    return html.Div(
        [
            # The shell has a Location too; this one is here for what is chosen, and goes with the page.
            dcc.Location(id="compare-url", refresh=False),
            dcc.Store(id="compare-written"),
            dcc.Store(id="compare-seen", data=_seen(here.seen, here.view)),
            dcc.Interval(id="compare-tick", interval=_EVERY_MS),
            elements.crumbs(("Studies", "/"), ("compare", "")),
            html.H1("Compare"),
            _controls(here, _names(source, view.names)),
            html.Div(notices(here), id="compare-notice"),
            elements.section(
                "Fronts",
                elements.graph("compare-graph", figure),
                html.P(aside, id="compare-aside", className="hint"),
                hint="The front of each study in the two objectives chosen. Every completed trial in the "
                "common box counts; the limits that a study set for itself are left aside. Click a mark to "
                "open its trial.",
            ),
            html.Div(numbers(here), id="compare-numbers"),
        ]
    )


def _names(source: StudySource, asked: Sequence[str]) -> list[str]:
    """Return the studies of the store, and those asked for that are not there."""
    try:
        there = [summary.name for summary in source.store().studies()]
    except HpoError:
        there = []
    return [*sorted(there), *(name for name in asked if name not in there)]


def _controls(here: Compared, names: Sequence[str]) -> html.Div:
    view, metrics = here.view, [{"label": words(o.metric), "value": o.metric} for o in here.objectives]
    studies = dcc.Dropdown(
        id="compare-names",
        options=_options(names),
        value=list(view.names),
        multi=True,
        placeholder="choose two or more studies",
    )
    cuts = dcc.RadioItems(
        id="compare-cut",
        options=[{"label": label, "value": kind} for kind, label in _CUTS.items()],
        value=view.cut,
        inline=True,
        className="radio",
    )
    seeds = dcc.Checklist(
        id="compare-seeds",
        options=[{"label": f"They are runs of one thing: show what {FEWEST} or more attain", "value": "1"}],
        value=["1"] if view.seeds else [],
    )
    return html.Div(
        [
            html.Div([html.Label("studies", htmlFor="compare-names"), studies], className="filter whole"),
            _axis("compare-x", "across", metrics, view.x),
            _axis("compare-y", "up", metrics, view.y),
            html.Div([html.Label("budget", htmlFor="compare-cut"), cuts], className="filter whole"),
            html.Div(_slider(here), id="compare-slider", className="whole", hidden=view.cut == "all"),
            html.Div(seeds, className="filter whole"),
        ],
        className="filters",
    )


def _options(names: Sequence[str]) -> Any:
    return [{"label": name, "value": name} for name in names]


def _axis(name: str, label: str, metrics: Any, value: str) -> html.Div:
    dropdown = dcc.Dropdown(id=name, options=metrics, value=value or None, clearable=False, searchable=False)
    return html.Div([html.Label(label, htmlFor=name), dropdown], className="filter")


def _scale(here: Compared) -> tuple[float, float]:
    """Return the end of the slider and its step."""
    most = max(here.most, 1.0 if here.view.cut == "trials" else 1e-6)
    return most, 1.0 if here.view.cut == "trials" else most / _STEPS


def _slider(here: Compared) -> list[Component]:
    most, step = _scale(here)
    slider = dcc.Slider(
        id="compare-at",
        min=0,
        max=most,
        step=step,
        value=here.view.at or 0.0,
        marks=None,
        allow_direct_input=False,
        tooltip={"placement": "bottom", "always_visible": False},
    )
    return [
        html.Label("cut at", htmlFor="compare-at", className="unseen"),
        html.Div(cut_text(here), id="compare-said", className="hint", role="status"),
        slider,
    ]


def _figure(here: Compared) -> tuple[Any, str]:
    if here.comparison is None or len(here.comparison.shares) < 2:
        return blank("Nothing to compare yet.", 220), ""
    if here.fronts is None:
        one = len(here.objectives) < 2
        why = "A front needs two objectives." if one else "Choose two different objectives."
        return blank(why, 320), ""
    return draw_fronts(here.fronts), here.fronts.aside


def notices(here: Compared) -> list[Component]:
    """Return what stands against the comparison, and what to be careful about."""
    parts: list[Component] = [elements.alert(trouble) for trouble in here.troubles]
    shown = len(here.comparison.shares) if here.comparison else 0
    if shown < 2 and not here.troubles:
        need = "one more study" if shown else "two or more studies"
        hint = "They are in the list above; on the page of all studies they can be ticked too."
        parts.append(elements.notice(f"Choose {need} to compare.", hint))
    if here.view.seeds and 0 < shown < FEWEST:
        hint = f"There are {shown}; choose more."
        parts.append(elements.notice(f"What runs attain is shown for {FEWEST} or more.", hint))
    if here.caveats and shown > 1:
        parts.append(html.Ul([html.Li(sentence) for sentence in here.caveats], className="caveats"))
    return parts


def numbers(here: Compared) -> list[Component]:
    """Return the table of what each study adds to the others."""
    if here.comparison is None or len(here.comparison.shares) < 2:
        return []
    parts = [
        elements.table(SHARE_HEAD, share_rows(here.comparison)),
        html.P(box_text(here), className="hint"),
    ]
    return [elements.section("In numbers", *parts, hint=cut_text(here))]


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date, and controls and address alike."""

    @app.callback(
        Output("compare-notice", "children"),
        Output("compare-graph", "figure"),
        Output("compare-aside", "children"),
        Output("compare-numbers", "children"),
        Output("compare-said", "children"),
        Output("compare-at", "max"),
        Output("compare-at", "step"),
        Output("compare-at", "value"),
        Output("compare-slider", "hidden"),
        Output("compare-seen", "data"),
        Output("compare-names", "value"),
        Output("compare-x", "options"),
        Output("compare-x", "value"),
        Output("compare-y", "options"),
        Output("compare-y", "value"),
        Output("compare-cut", "value"),
        Output("compare-seeds", "value"),
        Output("compare-url", "search"),
        Output("compare-written", "data"),
        Input("compare-tick", "n_intervals"),
        Input("compare-url", "search"),
        Input("compare-names", "value"),
        Input("compare-x", "value"),
        Input("compare-y", "value"),
        Input("compare-cut", "value"),
        Input("compare-at", "value"),
        Input("compare-seeds", "value"),
        State("compare-url", "pathname"),
        State("compare-seen", "data"),
        State("compare-written", "data"),
        prevent_initial_call=True,
    )
    def refresh(
        _tick: int,
        search: str,
        names: list[str] | None,
        x: str | None,
        y: str | None,
        cut: Kind,
        at: float | None,
        seeds: list[str] | None,
        path: str,
        seen: str,
        written: str | None,
    ) -> tuple[object, ...]:
        trigger = str(ctx.triggered_id)
        if trigger == "compare-url" and search == written:
            # The address that this page wrote comes back as if somebody had gone there; whatever was chosen
            # in the meantime must not be undone by it.
            return (no_update,) * 19
        asked = CompareView(tuple(names or ()), x or "", y or "", cut, at, bool(seeds))
        values = answer(source, trigger, path, search, asked, seen)
        return (*values, values[-1])

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Input("compare-graph", "clickData"),
        prevent_initial_call=True,
    )
    def open_trial(clicked: object) -> object:
        return trial_clicked(clicked) or no_update


def trial_clicked(clicked: object) -> str | None:
    """Return the address of the trial behind a mark of the figure; None for a line or anything else."""
    match clicked:
        case {"points": [{"customdata": str(path)}, *_]} if isinstance(route(path), TrialRoute):
            return path
    return None


def _seen(studies: str, view: CompareView) -> str:
    """Return what differs whenever the page would: the studies, or what is asked of them.

    The browser drops the answer to a choice when something else asks before it is there; the next tick makes
    up for that.
    """
    at = 0.0 if view.cut == "all" else view.at or 0.0
    return f"{studies} {(view.names, view.x, view.y, view.cut, at, view.seeds)}"


def answer(
    source: StudySource, trigger: str, path: str, search: str, asked: CompareView, seen: str
) -> tuple[object, ...]:
    """Return the new values of the callback's outputs after a tick, a new address or a new choice."""
    if path != CompareRoute.path or (
        trigger == "compare-tick" and seen == _seen(seen_of(source, asked.names), asked)
    ):
        return (no_update,) * 18  # on the way to another page, or nothing is new
    if trigger == "compare-url":
        asked = CompareView.read(search)
    elif trigger == "compare-cut":  # hours are no trials: begin at what all have
        asked = CompareView(asked.names, asked.x, asked.y, asked.cut, None, asked.seeds)
    here = compared(source, asked)
    view = here.view
    metrics = [{"label": words(o.metric), "value": o.metric} for o in here.objectives]
    dragged = trigger == "compare-at"  # the slider stays as it is under the hand
    slider = (no_update,) * 3 if dragged else (*_scale(here), view.at or 0.0)
    return (
        notices(here),
        *_figure(here),
        numbers(here),
        cut_text(here),
        *slider,
        view.cut == "all",
        _seen(here.seen, view),
        list(view.names),
        metrics,
        view.x or None,
        metrics,
        view.y or None,
        view.cut if view.cut in KINDS else "all",
        ["1"] if view.seeds else [],
        view.search,
    )
