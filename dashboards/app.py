"""The dashboard: a shell with an explicit router, the pages behind it, and the door before all of it."""

import logging
from pathlib import Path

import flask
from dash import Dash, Input, Output, State, dcc, html, set_props
from dash.development.base_component import Component

from dashboards import (
    actions,
    compare_page,
    elements,
    front_page,
    search_page,
    studies_page,
    trial_page,
    workers_page,
)
from dashboards.data import register_data
from dashboards.routes import (
    CompareRoute,
    Route,
    SearchRoute,
    StudiesRoute,
    StudyRoute,
    TrialRoute,
    WorkersRoute,
    route,
)
from dashboards.security import Access, Door, content_policy
from dashboards.source import StudySource
from hpo.errors import HpoError

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
{%favicon%}
{%css%}
</head>
<body>
{%app_entry%}
<footer>
{%config%}
{%scripts%}
{%renderer%}
</footer>
</body>
</html>
"""
"""Dash's own page does not say in which language it is; readers aloud want to know."""

ASSETS = Path(__file__).parent / "assets"
_LOG = logging.getLogger(__name__)


def create_app(
    storage: str | None, access: Access, allow_actions: bool = False, source: StudySource | None = None
) -> Dash:
    """Return the dashboard of a study store; its WSGI application is ``app.server``.

    The store is opened when a page is asked for, so it may come into being later. It is opened read-only;
    with `allow_actions`, for writing as well, as long as an action takes. `source` may have read it already.
    """
    source = source or StudySource(storage)
    app = Dash(
        "dashboards",
        # Dash takes a Flask application here; its annotation does not know.
        server=flask.Flask("dashboards", static_folder=None),  # type: ignore[arg-type]
        title="Compression studies",
        update_title="",
        assets_folder=str(ASSETS),
        use_pages=False,
        serve_locally=True,
        suppress_callback_exceptions=True,  # the pages' elements come and go
        on_error=_show_fault,
        enable_mcp=False,
        websocket_callbacks=False,
        meta_tags=[
            {"name": "viewport", "content": "width=device-width, initial-scale=1"},
            {"name": "color-scheme", "content": "light dark"},
        ],
    )
    app.index_string = _INDEX
    app.layout = _shell()
    register_data(app.server, source)
    _register_router(app, source, allow_actions)
    for page in (studies_page, front_page, search_page, workers_page, trial_page, compare_page):
        page.register(app, source)
    if allow_actions:
        actions.register(app, storage)
    policy = content_policy(app.csp_hashes())
    # Before Flask and Dash, so that no route of theirs can be forgotten.
    app.server.wsgi_app = Door(app.server.wsgi_app, access, policy)
    return app


def _shell() -> html.Div:
    return html.Div(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            html.Header([dcc.Link("compression-hpo", href="/", className="home")]),
            html.Div(id="fault"),
            html.Main(id="page"),
            # Plotly's script is most of what a page waits for: it comes while the page is being made.
            html.Div(elements.graph("early", {"data": [], "layout": {}}), hidden=True),
        ]
    )


def _show_fault(error: Exception) -> None:
    """Log a fault of ours with its traceback, and tell the user where to look."""
    _LOG.error("a page could not be made", exc_info=error)
    said = elements.notice(
        f"The dashboard failed: {type(error).__name__}.",
        "The terminal it was started from says more. Reloading the page may help.",
        kind="error",
    )
    set_props("fault", {"children": said})


def _register_router(app: Dash, source: StudySource, allow_actions: bool) -> None:
    @app.callback(Output("page", "children"), Input("url", "pathname"), State("url", "search"))
    def show(path: str | None, search: str | None) -> Component:
        return page_at(source, path, search, allow_actions)


def page_at(
    source: StudySource, path: str | None, search: str | None, allow_actions: bool = False
) -> Component:
    """Return the page at an address; one that says what is wrong and what to do if it cannot be had."""
    try:
        found = _page(source, route(path), search, allow_actions)
    except HpoError as error:
        return _lost(elements.alert(error))
    return found or _lost(elements.notice("There is no page at this address.", kind="error"))


def _page(source: StudySource, at: Route | None, search: str | None, allow_actions: bool) -> Component | None:
    page: Component | None = None
    match at:
        case StudiesRoute():
            page = studies_page.layout(source)
        case StudyRoute(name):
            page = front_page.layout(source, name, search, allow_actions)
        case SearchRoute(name):
            page = search_page.layout(source, name, search)
        case WorkersRoute(name):
            page = workers_page.layout(source, name, search)
        case TrialRoute(name, number):
            page = trial_page.layout(source, name, number, allow_actions)
        case CompareRoute():
            page = compare_page.layout(source, search)
    return page


def _lost(what: Component) -> html.Div:
    return html.Div([elements.crumbs(("Studies", "/"), ("not found", "")), what])
