"""What stands around every page of a study: its name and state, and the way to its other pages."""

from collections.abc import Mapping
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import elements
from dashboards.routes import SearchRoute, StudyRoute, WorkersRoute
from dashboards.source import Snapshot

TABS: Mapping[str, type[StudyRoute | SearchRoute | WorkersRoute]] = {
    "front": StudyRoute,
    "search": SearchRoute,
    "workers": WorkersRoute,
}
"""Page of a study -> its address."""


def framed(now: Snapshot, tab: str, *children: Component) -> html.Div:
    """Return a page of a study, `tab` of `TABS`, with `children` below its head."""
    name = now.record.study.name
    return html.Div(
        [
            elements.crumbs(("Studies", "/"), (name, "")),
            html.Div(
                [html.H1(name), html.Span(elements.badge(now.record.state), id="study-state")],
                className="title",
            ),
            tabs(name, tab),
            *children,
        ]
    )


def tabs(name: str, here: str) -> html.Nav:
    """Return the links to a study's pages; the one we are at is marked."""
    links = []
    for tab, route in TABS.items():
        current: dict[str, Any] = {"aria-current": "page"} if tab == here else {}
        link = dcc.Link(tab.capitalize(), href=route(name).path, className="tab")
        links.append(html.Li(link, className="here" if current else "", **current))
    label: dict[str, Any] = {"aria-label": "pages of this study"}
    return html.Nav(html.Ul(links), className="tabs", **label)
