"""A study on the list of studies: how it is doing at a glance."""

import shlex
from collections.abc import Iterable, Mapping, Sequence

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import elements
from dashboards.routes import StudyRoute
from dashboards.sparkline import Course, sparkline
from dashboards.study_choice import done
from hpo.format import count_text, number_text, percent_text, value_text, words
from hpo.metric import METRICS
from hpo.store.values import StudyState, StudySummary

CHECKBOX = "study-choose"


def study_cards(
    summaries: Sequence[StudySummary], chosen: Iterable[str] = (), now: float = 0.0
) -> list[Component]:
    """Return a card for each study, in the order given, each with a box by which to choose it."""
    picked = set(chosen)
    items = [html.Li([_box(s.name, s.name in picked), study_card(s, now)]) for s in summaries]
    return [html.Ul(items, className="cards")]


def _box(name: str, picked: bool) -> dcc.Checklist:
    label = html.Span(["compare", html.Span(f" {name}", className="unseen")])
    return dcc.Checklist(
        id={"type": CHECKBOX, "name": name},
        options=[{"label": label, "value": name}],
        value=[name] if picked else [],
        className="choose",
    )


def study_card(summary: StudySummary, now: float) -> html.Article:
    """Return the card of a study; `now`, in seconds since the epoch, tells whether its lease is good."""
    link = dcc.Link(summary.name, href=StudyRoute(summary.name).path, className="card-title")
    facts = best_texts(summary) | _others(summary)
    parts: list[Component] = [
        html.Div([html.H2(link), elements.badge(summary.state)], className="card-head"),
        *_trouble(summary, now),
        *([html.P(summary.question, className="question")] if summary.question else []),
        *_progress(summary),
        _hypervolume(summary),
        html.Dl([_fact(label, value) for label, value in facts.items()], className="facts"),
    ]
    return html.Article(parts, className="card")


def _trouble(summary: StudySummary, now: float) -> list[Component]:
    if summary.message and summary.state in (StudyState.FAILED, StudyState.STOPPED):
        return [html.P(summary.message, className=f"said said-{summary.state}")]
    if is_deserted(summary, now):
        said = "Nobody runs it any more. Go on with it:"
        command = html.Code(f"hpo resume {shlex.quote(summary.name)}")
        return [html.P([f"{said} ", command], className="said said-failed")]
    return []


def is_deserted(summary: StudySummary, now: float) -> bool:
    """Return whether a study is said to run, while nobody holds its lease or the lease has expired."""
    lapsed = summary.lease_until is None or summary.lease_until < now
    return summary.state is StudyState.RUNNING and lapsed


def _progress(summary: StudySummary) -> list[Component]:
    over, of = done(summary), summary.budget_trials
    label = count_text(over, "trial") if of is None else f"{over:,} of {count_text(of, 'trial')}"
    bars: list[Component] = [elements.progress(over, of, label)] if of else []
    if hours := summary.budget_hours:
        said = f"{number_text(summary.hours, 3)} of {number_text(hours, 3)} h"
        bars.append(elements.progress(summary.hours, hours, said if of else f"{said}, {label}"))
    return bars or [html.P(label, className="hint")]


def _hypervolume(summary: StudySummary) -> html.Div:
    value = percent_text(summary.hypervolume) if summary.hypervolume is not None else "not known yet"
    drawn = sparkline(course_until_now(summary))
    said = html.Span([html.Span("hypervolume ", className="hint"), html.Strong(value)])
    return html.Div([said, *([] if drawn is None else [drawn])], className="spark-line")


def course_until_now(summary: StudySummary) -> Course:
    """Return how the hypervolume went, up to the trials that are over."""
    over = done(summary)
    if not summary.course or over <= summary.course[-1][0]:
        return summary.course
    return (*summary.course, (over, summary.course[-1][1]))


def best_texts(summary: StudySummary) -> dict[str, Component | str]:
    """Return objective -> its best value on the front with its unit, for people."""
    return {
        f"best {words(name)}": value_text(summary.best[name], METRICS[name].unit)
        if name in summary.best
        else "–"
        for name in summary.objectives
    }


def _others(summary: StudySummary) -> dict[str, Component | str]:
    return {
        "front": count_text(summary.front_size, "trial"),
        "running": f"{count_text(summary.counts.get('running', 0), 'trial')} "
        f"on {count_text(summary.workers, 'worker')}"
        if summary.workers
        else "nothing",
        "failures": failures_text(summary.causes),
        "last change": elements.moment(summary.updated_at),
    }


def _fact(label: str, value: Component | str) -> html.Div:
    return html.Div([html.Dt(label), html.Dd(value)], className="fact")


def failures_text(causes: Mapping[str, int]) -> str:
    """Return failures by cause, the most frequent first."""
    if not causes:
        return "none"
    ordered = sorted(causes.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {words(cause)}" for cause, count in ordered)
