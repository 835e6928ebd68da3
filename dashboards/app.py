"""The dashboard: a shell with an explicit router, three pages behind it, and the door before all of it."""

import logging
from pathlib import Path

import flask
from dash import Dash, Input, Output, State, dcc, html, set_props
from dash.development.base_component import Component

from dashboards import elements, studies_page, study_page, trial_page
from dashboards.routes import StudiesRoute, StudyRoute, TrialRoute, route
from dashboards.security import Access, Door, content_policy
from dashboards.source import StudySource
from hpo.errors import HpoError

ASSETS = Path(__file__).parent / "assets"
_LOG = logging.getLogger(__name__)


def create_app(storage: str | None, access: Access) -> Dash:
    """Return the dashboard of a study store; its WSGI application is ``app.server``.

    The store is opened when a page is asked for, so it may come into being later.
    """
    source = StudySource(storage)
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
    app.layout = _shell()
    _register_router(app, source)
    for page in (studies_page, study_page, trial_page):
        page.register(app, source)
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


def _register_router(app: Dash, source: StudySource) -> None:
    @app.callback(Output("page", "children"), Input("url", "pathname"), State("url", "search"))
    def show(path: str | None, search: str | None) -> Component:
        return page_at(source, path, search)


def page_at(source: StudySource, path: str | None, search: str | None) -> Component:
    """Return the page at an address; one that says what is wrong and what to do if it cannot be had."""
    try:
        match route(path):
            case StudiesRoute():
                return studies_page.layout(source)
            case StudyRoute(name):
                return study_page.layout(source, name, search)
            case TrialRoute(name, number):
                return trial_page.layout(source, name, number)
        return _lost(elements.notice("There is no page at this address.", kind="error"))
    except HpoError as error:
        return _lost(elements.alert(error))


def _lost(what: Component) -> html.Div:
    return html.Div([elements.crumbs(("Studies", "/"), ("not found", "")), what])
