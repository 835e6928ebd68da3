"""The first page: every study of the store, and how it is doing."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dash import ALL, Dash, Input, Output, Patch, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from dashboards.routes import CompareRoute
from dashboards.source import StudySource
from dashboards.study_cards import CHECKBOX, is_deserted, study_card, study_cards
from dashboards.study_choice import ORDERS, Choice
from hpo.errors import HpoError
from hpo.store.values import StudyState, StudySummary

_EVERY_MS = 2000
_AT_ONCE = 24
"""Cards that are added at a time: a browser takes a hundredth of a second and more for each."""

Seen = list[tuple[str, str]]
"""Name and digest of each study that is shown, in order."""


def layout(source: StudySource) -> html.Div:
    """Return the page as it stands."""
    view = _current(source, Choice(), ())
    return html.Div(
        [
            html.H1("Studies"),
            _controls(),
            html.Div(
                [
                    html.Span(view.said, id="studies-said", className="hint"),
                    html.Span(comparison_link([]), id="studies-compare"),
                ],
                className="studies-bar",
                role="status",
            ),
            html.Div(view.cards, id="studies"),
            html.Button("Show more", id="studies-more", className="button", hidden=not view.more),
            dcc.Store(id="studies-seen", data=view.seen),
            dcc.Store(id="studies-chosen", data=[]),
            dcc.Interval(id="studies-tick", interval=_EVERY_MS),
        ]
    )


def _controls() -> html.Div:
    states = [{"label": "all", "value": "all"}, *({"label": s, "value": s} for s in map(str, StudyState))]
    orders = [{"label": name, "value": name} for name in ORDERS]
    text = dcc.Input(
        id="studies-filter", type="search", value="", debounce=0.25, placeholder="part of name or question"
    )
    return html.Div(
        [
            _control("filter", "studies-filter", text),
            _control("state", "studies-state", _dropdown("studies-state", states)),
            _control("sort by", "studies-order", _dropdown("studies-order", orders)),
        ],
        className="filters",
    )


def _dropdown(name: str, options: list[dict[str, str]]) -> dcc.Dropdown:
    return dcc.Dropdown(
        id=name, options=options, value=options[0]["value"], clearable=False, searchable=False
    )


def _control(label: str, name: str, what: Component) -> html.Div:
    return html.Div([html.Label(label, htmlFor=name), what], className="filter")


@dataclass(frozen=True)
class _View:
    """What is sent of the list of studies."""

    cards: Any
    """Components, or a patch of those that are there."""
    seen: Seen
    said: str = ""
    more: bool = False
    """There are studies that are wanted and not shown."""


def _current(
    source: StudySource,
    choice: Choice,
    chosen: Sequence[str],
    shown: Sequence[Sequence[str]] = (),
    most: int = _AT_ONCE,
) -> _View:
    """Return the cards of the studies that are wanted, or what has changed of those `shown`."""
    try:
        summaries = source.store().studies()
    except HpoError as error:
        return _View([elements.alert(error)], [("", _digest(str(error)))])
    if not summaries:
        return _View([_nothing_yet()], [("", "empty")])
    found = choice.of(summaries)
    if not found:
        nothing = elements.notice("No study matches.", "Clear the filter, or choose all states.")
        return _View([nothing], [("", "no match")])
    view = _cards(found[:most], chosen, shown)
    return replace(view, said=_said(len(found), len(summaries)), more=len(found) > most)


def _cards(found: Sequence[StudySummary], chosen: Sequence[str], shown: Sequence[Sequence[str]]) -> _View:
    """Return all cards; only those that have changed where the studies are those that are `shown`. Then their
    order is kept too: what one is about to click stays where it is."""
    now = time.time()
    digests = {s.name: _digest(f"{s!r} {is_deserted(s, now)}") for s in found}
    if {name for name, _ in shown} != set(digests):
        return _View(study_cards(found, chosen, now), list(digests.items()))
    by_name = {s.name: s for s in found}
    cards = Patch()
    for place, (name, digest) in enumerate(shown):
        if digests[name] != digest:
            cards[0]["props"]["children"][place]["props"]["children"][1] = study_card(by_name[name], now)
    return _View(cards, [(name, digests[name]) for name, _ in shown])


def _said(shown: int, there_are: int) -> str:
    if shown == there_are:
        return "1 study" if shown == 1 else f"{shown:,} studies"
    return f"{shown:,} of {there_are:,} studies"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _nothing_yet() -> html.Div:
    return elements.notice(
        "There is no study in this store yet.", "Launch one, then come back:", "hpo launch quickstart"
    )


def comparison_link(names: Sequence[str]) -> list[Component]:
    """Return the way to the studies side by side; how to get there while fewer than two are chosen."""
    if len(names) < 2:
        need = "one more" if names else "two or more"
        return [html.Span(f"Tick {need} to compare.", className="hint")]
    return [dcc.Link(f"Compare {len(names)} studies", href=CompareRoute.of(names), className="button")]


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date, and let studies be found and chosen."""

    @app.callback(
        Output("studies", "children"),
        Output("studies-seen", "data"),
        Output("studies-said", "children"),
        Output("studies-more", "hidden"),
        Input("studies-tick", "n_intervals"),
        Input("studies-filter", "value"),
        Input("studies-state", "value"),
        Input("studies-order", "value"),
        Input("studies-more", "n_clicks"),
        State("studies-seen", "data"),
        State("studies-chosen", "data"),
        prevent_initial_call=True,
    )
    def refresh(
        _tick: int,
        text: str | None,
        state: str | None,
        order: str | None,
        clicks: int | None,
        seen: list[list[str]] | None,
        chosen: list[str] | None,
    ) -> tuple[object, object, object, object]:
        choice = Choice(text or "", "" if state in (None, "all") else str(state), order or "last change")
        kept = (seen or []) if ctx.triggered_id == "studies-tick" else []
        view = _current(source, choice, chosen or (), kept, _AT_ONCE * (1 + (clicks or 0)))
        if [tuple(pair) for pair in kept] == view.seen:
            return no_update, no_update, no_update, no_update
        return view.cards, view.seen, view.said, not view.more

    @app.callback(
        Output("studies-chosen", "data"),
        Output("studies-compare", "children"),
        Input({"type": CHECKBOX, "name": ALL}, "value"),
        State({"type": CHECKBOX, "name": ALL}, "id"),
        State("studies-chosen", "data"),
        prevent_initial_call=True,
    )
    def choose(
        ticked: list[list[str] | None], boxes: list[dict[str, str]], before: list[str] | None
    ) -> tuple[object, object]:
        chosen = chosen_now(before or [], [box["name"] for box in boxes], ticked)
        return chosen, comparison_link(chosen)


def chosen_now(
    before: Sequence[str], shown: Sequence[str], ticked: Sequence[Sequence[str] | None]
) -> list[str]:
    """Return the chosen studies in the order in which they were chosen; those not shown stay chosen."""
    on = {name for name, values in zip(shown, ticked, strict=True) if values}
    kept = [name for name in before if name in on or name not in shown]
    return [*kept, *(name for name in shown if name in on and name not in kept)]
