"""The pieces that pages are made of. Whatever text they are given is shown as text."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from dashboards.figures import GRAPH_CONFIG
from hpo.errors import HpoError
from hpo.format import time_text

Children = Component | str | Sequence[Component | str]


def graph(name: str, figure: go.Figure | dict[str, Any]) -> dcc.Graph:
    """Return a figure on a page; `name` is its id."""
    config: Any = dict(GRAPH_CONFIG)
    return dcc.Graph(id=name, figure=figure, config=config, className="figure")


def alert(error: HpoError) -> html.Div:
    """Return what went wrong and what to do about it."""
    return notice(error.message, error.hint, kind="error")


def notice(message: str, hint: str = "", command: str = "", kind: str = "info") -> html.Div:
    """Return a box that says something, what to do, and the command to do it with."""
    parts: list[Component] = [html.P(message, className="notice-message")]
    if hint:
        parts.append(html.P(hint, className="notice-hint"))
    if command:
        parts.append(html.Pre(command, className="command"))
    return html.Div(parts, className=f"notice notice-{kind}", role="alert" if kind == "error" else "status")


def badge(state: str) -> html.Span:
    """Return a coloured word; the colour adds nothing that the word does not say."""
    return html.Span(state.replace("_", " "), className=f"badge badge-{state}")


def tiles(pairs: Mapping[str, str]) -> html.Dl:
    """Return figures worth a glance: label -> value."""
    return html.Dl([_pair(label, value, "tile") for label, value in pairs.items()], className="tiles")


def facts(pairs: Mapping[str, str]) -> html.Dl:
    """Return a list of label -> value, one a line."""
    return html.Dl([_pair(label, value, "fact") for label, value in pairs.items()], className="facts")


def _pair(label: str, value: str, kind: str) -> html.Div:
    return html.Div([html.Dt(label), html.Dd(value)], className=kind)


def moment(at: float | None) -> html.Time | str:
    """Return a time, in seconds since the epoch, that is shown in its reader's zone; a dash if None."""
    if at is None:
        return "–"
    return html.Time(
        time_text(at), dateTime=datetime.fromtimestamp(at, tz=UTC).isoformat(), className="moment"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[Children]]) -> html.Div:
    """Return a table that scrolls sideways where the screen is narrow."""
    header = html.Thead(html.Tr([html.Th(name, scope="col") for name in head]))
    body = html.Tbody([html.Tr([html.Td(cell) for cell in row]) for row in rows])
    return html.Div(html.Table([header, body]), className="scroll", tabIndex="0")


def section(title: str, *children: Any, hint: str = "") -> html.Section:
    """Return a titled part of a page."""
    parts = [html.H2(title), *([html.P(hint, className="hint")] if hint else []), *children]
    return html.Section(parts)


def progress(done: float, of: float, label: str) -> html.Div:
    """Return a bar that is filled by the share `done` of `of`; `label` says it in words."""
    bar = html.Progress(value=str(min(done, of)), max=str(of or 1), **_aria("label", label))
    return html.Div([bar, html.Span(label, className="hint")], className="progress")


def crumbs(*links: tuple[str, str]) -> html.Nav:
    """Return the way back: pairs of text and path, the last one being where we are."""
    items: list[Component] = []
    for text, path in links[:-1]:
        items += [dcc.Link(text, href=path), html.Span("/", className="crumb-bar")]
    items.append(html.Span(links[-1][0], **_aria("current", "page")))
    return html.Nav(items, className="crumbs", **_aria("label", "breadcrumb"))


def _aria(name: str, value: str) -> dict[str, Any]:
    return {f"aria-{name}": value}
