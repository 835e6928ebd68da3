"""How a trial came about and what is like it: the lower parts of its page."""

from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import attempts, elements, stage_bars
from dashboards.healing import NONE, draw_healing, has_healed, healing_view
from dashboards.lineage import WORDS, Lineage, Link, lineage_of
from dashboards.neighbours import Neighbour, neighbours
from dashboards.routes import TrialRoute
from dashboards.source import Snapshot
from dashboards.trial_rows import measurement_text
from hpo.format import count_text, note_text, number_text, words
from hpo.healing_curve import HealingCurve
from hpo.store.values import Event
from hpo.trial import Trial

_MOST_LINKS = 12
_SHOWN_EVENTS = 200


def healing(trial: Trial, curve: HealingCurve | None) -> list[Component]:
    """Return how the healing went; nothing of a trial that has not healed."""
    view = healing_view(trial, curve)
    if view is None:
        if not has_healed(trial):
            return []
        said = NONE
        if "heal_shared_run" in trial.notes:
            said = "It took a healing that was done for several trials, whose losses were not kept."
        return [elements.section("Healing", html.P(said, className="hint"))]
    drawn = elements.graph("healing-graph", draw_healing(view))
    figure = html.Div(drawn, role="figure", **_label(f"curve. {view.sentence}"))
    return [elements.section("Healing", figure, hint=view.sentence)]


def stages(trial: Trial) -> html.Section:
    """Return how long each stage took, and the joules that were counted."""
    heading = "Stages"
    if not trial.stages:
        return elements.section(heading, html.P("No stage is done.", className="hint"))
    bars = stage_bars.stage_bars(trial.stages)
    rows = stage_bars.stage_rows(bars)
    figure = html.Div(
        elements.graph("stages-graph", stage_bars.draw_stages(bars)),
        role="figure",
        **_label("one bar, a part for each stage; the table below says the same"),
    )
    return elements.section(heading, figure, elements.table(stage_bars.HEAD, rows))


def course(trial: Trial, events: Sequence[Event]) -> html.Section:
    """Return what happened to the trial, and when."""
    told = attempts.happenings(trial, events)
    left_out = len(told) - _SHOWN_EVENTS
    rows = [
        (
            elements.moment(h.at),
            "–" if h.attempt is None else str(h.attempt),
            html.Strong(h.what) if h.is_trouble else h.what,
            h.said or "–",
        )
        for h in told[-_SHOWN_EVENTS:]
    ]
    parts: list[Component] = [_facts(trial)]
    if left_out > 0:
        parts.append(html.P(f"The first {left_out} of {len(told)} events are left out.", className="hint"))
    if rows:
        parts.append(html.Div(elements.table(attempts.HEAD, rows), className="course"))
    return elements.section("Course", *parts, hint=attempts.attempts_sentence(trial, events))


def _facts(trial: Trial) -> html.Dl:
    pairs: dict[str, Component | str] = {
        "asked by": trial.origin,
        "attempt": str(trial.attempt),
        "worker": trial.worker or "–",
        "asked at": elements.moment(trial.created_at or None),
        "started at": elements.moment(trial.started_at),
        "finished at": elements.moment(trial.finished_at),
        "plan": trial.plan_hash or "–",
        **{words(name): note_text(value) for name, value in trial.notes.items()},
    }
    return html.Dl(
        [html.Div([html.Dt(label), html.Dd(value)], className="fact") for label, value in pairs.items()],
        className="facts",
    )


def lineage(now: Snapshot, trial: Trial) -> html.Section:
    """Return where a trial comes from and what came of it."""
    family, name = lineage_of(trial, now.trials), now.record.study.name
    items = [_descends(name, link) for link in family.parents]
    if len(family.line) > 1:
        items.append(html.Li(["The healed factors go back over ", *_links(name, family.line), "."]))
    items += _descendants(name, family)
    if family.sharing:
        items.append(html.Li(["The same healing serves ", *_links(name, family.sharing), "."]))
    if used := now.record.environment.get("warm_start"):
        items.append(html.Li(f"The search itself began from earlier studies: {used}."))
    heading = "Lineage"
    if not items:
        said = "It started from the dense model, and no other trial has started from it."
        return elements.section(heading, html.P(said, className="hint"))
    return elements.section(heading, html.Ul(items, className="lineage"))


def _descends(name: str, link: Link) -> html.Li:
    said = WORDS[link.kind]
    return html.Li([f"{said[0].upper()}{said[1:]} ", *_links(name, [link.number]), "."])


def _descendants(name: str, family: Lineage) -> list[html.Li]:
    said = {"healed": "Its healed factors were the start of ", "moved": "Moved from its plan were "}
    found = []
    for kind, beginning in said.items():
        numbers = [link.number for link in family.children if link.kind == kind]
        if numbers:
            found.append(html.Li([beginning, *_links(name, numbers), "."]))
    return found


def _links(name: str, numbers: Sequence[int]) -> list[Any]:
    parts: list[Any] = []
    for i, number in enumerate(numbers[:_MOST_LINKS]):
        parts += [", "] if i else []
        parts.append(dcc.Link(f"trial {number}", href=TrialRoute(name, number).path))
    more = len(numbers) - _MOST_LINKS
    return [*parts, f" and {count_text(more, 'more trial')}"] if more > 0 else parts


def nearest(now: Snapshot, trial: Trial) -> html.Section:
    """Return the completed trials most like this one, with what they came to."""
    study = now.record.study
    found = neighbours(study.space, trial, now.trials)
    heading = "Nearest neighbours"
    if not found:
        why = "The dense model is near to no other." if trial.is_dense else "No other trial is completed yet."
        return elements.section(heading, html.P(why, className="hint"))
    head = ("trial", *(words(o.metric) for o in study.objectives), "apart", "differs in")
    return elements.section(
        heading,
        elements.table(head, [_neighbour(now, n) for n in found]),
        hint="Of the completed trials; apart is from 0, the same, to 1, alike in nothing.",
    )


def _neighbour(now: Snapshot, near: Neighbour) -> list[Any]:
    study = now.record.study
    values = []
    for o in study.objectives:
        found = near.trial.measurement(o.metric)
        values.append("–" if found is None else measurement_text(found))
    link = dcc.Link(str(near.trial.number), href=TrialRoute(study.name, near.trial.number).path)
    return [link, *values, number_text(near.distance, 2), near.differs]


def _label(text: str) -> dict[str, Any]:
    return {"aria-label": text}
