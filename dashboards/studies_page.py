"""The first page: every study of the store, and how it is doing."""

import hashlib
from collections.abc import Mapping, Sequence

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from dashboards.routes import StudyRoute
from dashboards.source import StudySource
from hpo.errors import HpoError
from hpo.format import count_text, percent_text, time_text, words
from hpo.store.values import StudySummary

_EVERY_MS = 2000
_FINAL = ("completed", "stopped", "failed")


def layout(source: StudySource) -> html.Div:
    """Return the page as it stands."""
    children, seen = _current(source)
    return html.Div(
        [
            html.H1("Studies"),
            html.Div(children, id="studies"),
            dcc.Store(id="studies-seen", data=seen),
            dcc.Interval(id="studies-tick", interval=_EVERY_MS),
        ]
    )


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date."""

    @app.callback(
        Output("studies", "children"),
        Output("studies-seen", "data"),
        Input("studies-tick", "n_intervals"),
        State("studies-seen", "data"),
        prevent_initial_call=True,
    )
    def refresh(_tick: int, seen: str) -> tuple[object, object]:
        children, now = _current(source)
        return (no_update, no_update) if now == seen else (children, now)


def _current(source: StudySource) -> tuple[list[Component], str]:
    """Return the studies and a digest by which to see whether anything has changed."""
    try:
        summaries = source.store().studies()
    except HpoError as error:
        return [elements.alert(error)], str(error)
    return study_cards(summaries), hashlib.sha256(repr(summaries).encode()).hexdigest()


def study_cards(summaries: Sequence[StudySummary]) -> list[Component]:
    """Return a card for each study, the one changed last first."""
    if not summaries:
        return [
            elements.notice(
                "There is no study in this store yet.", "Launch one, then come back:", "hpo launch quickstart"
            )
        ]
    latest = sorted(summaries, key=lambda s: s.updated_at, reverse=True)
    return [html.Ul([html.Li(_card(summary)) for summary in latest], className="cards")]


def _card(summary: StudySummary) -> html.Article:
    done = sum(summary.counts.get(state, 0) for state in _FINAL)
    box = "not known yet" if summary.hypervolume is None else percent_text(summary.hypervolume)
    head = html.Div(
        [
            dcc.Link(summary.name, href=StudyRoute(summary.name).path, className="card-title"),
            elements.badge(summary.state),
        ],
        className="card-head",
    )
    of = summary.budget_trials
    label = count_text(done, "trial") if of is None else f"{done} of {count_text(of, 'trial')}"
    facts = {
        "front": count_text(summary.front_size, "trial"),
        "hypervolume": box,
        "failures": failures_text(summary.causes),
        "updated": time_text(summary.updated_at),
    }
    return html.Article(
        [
            head,
            html.P(summary.question, className="question"),
            elements.progress(done, of or done, label),
            elements.facts(facts),
        ],
        className="card",
    )


def failures_text(causes: Mapping[str, int]) -> str:
    """Return failures by cause, the most frequent first."""
    if not causes:
        return "none"
    ordered = sorted(causes.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {words(cause)}" for cause, count in ordered)
