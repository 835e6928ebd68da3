"""What stands in the sections of the search page."""

import math
from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import elements
from dashboards.calibration import NOT_KEPT, Calibration, calibrations, draw_calibration
from dashboards.early_stops import REASON_HEAD, STAGE_HEAD, early_stops, reason_rows, stage_rows
from dashboards.importance import WHY_NONE, Importances, draw_importances, importances, narrowest
from dashboards.slices import draw_slice, slice_of
from dashboards.source import Snapshot
from dashboards.summary import MODEL_HEAD, MODEL_HINT, model_rows
from hpo.format import percent_text, words
from hpo.skill import Skill
from hpo.trial import Trial

NO_MODEL = (
    "The search has not judged a model of its own yet: it does so once it has one and enough trials to leave "
    "each of them out. Some samplers have none."
)


def model_parts(skills: Sequence[Skill]) -> list[Component]:
    """Return how good the search's own model is: a table, and what it foretold against what came."""
    if not skills:
        return [elements.notice(NO_MODEL)]
    found = calibrations(skills)
    shown = [one.shown for one in found if one.points and one.shown]
    parts: list[Component] = [
        html.P(MODEL_HINT, className="hint"),
        elements.table(MODEL_HEAD, model_rows(skills)),
        html.Ul([html.Li(one.words) for one in found]),
    ]
    drawn = [one for one in found if one.points]
    if not drawn:
        return [*parts, html.P(NOT_KEPT, className="hint")]
    graphs = [html.Div([html.H3(words(one.metric)), _calibration_graph(one)]) for one in drawn]
    said = "Bars are 90 % intervals; on the dashed line a trial came out as foretold."
    return [
        *parts,
        html.Div(graphs, className="small-graphs"),
        html.P(" ".join([said, *shown]), className="hint"),
    ]


def _calibration_graph(one: Calibration) -> html.Div:
    # In a cell of a grid a figure takes the height of what it is in.
    return html.Div(elements.graph(f"search-of-{one.metric}", draw_calibration(one)), className="small-graph")


def model_mark(skills: Sequence[Skill]) -> str:
    """Return what differs whenever the model was judged anew."""
    return "|".join(f"{s.metric}:{s.trials}:{s.error}:{s.coverage}:{len(s.foretold)}" for s in skills)


def importance_parts(now: Snapshot) -> list[Component]:
    """Return which parameters matter, as a heat map and as a table."""
    study = now.record.study
    found = importances(study.space, study.objectives, now.trials)
    if found is None:
        return [elements.notice(WHY_NONE)]
    figure = html.Div(
        elements.graph("search-importance-graph", draw_importances(found)),
        style={"minWidth": f"{narrowest(found)}px"},
    )
    return [
        html.P(found.words),
        html.Div(figure, className="scroll", tabIndex="0"),
        html.P(found.caption, className="hint"),
        html.Details([html.Summary("As a table"), _importance_table(found)]),
    ]


def _importance_table(found: Importances) -> html.Div:
    head = ("parameter", "among trials that have it", *map(words, found.objectives))
    rows = [
        (name, f"{having:,}", *("–" if math.isnan(share) else percent_text(share) for share in shares))
        for name, having, shares in zip(found.parameters, found.having, found.shares, strict=True)
    ]
    return elements.table(head, rows)


def slice_parts(now: Snapshot, parameter: str, metric: str) -> tuple[object, str]:
    """Return the figure of a slice and a sentence on what it shows."""
    study = now.record.study
    seen = slice_of(study.space, study.objectives, now.trials, parameter, metric)
    return draw_slice(seen), seen.words


def stop_parts(trials: Sequence[Trial]) -> list[Component]:
    """Return how many trials were stopped early, where, why, and what that saved."""
    stops = early_stops(trials)
    parts: list[Component] = [html.P(stops.words)]
    if stops.stopped:
        parts += [
            elements.table(STAGE_HEAD, stage_rows(stops)),
            html.H3("Reasons"),
            elements.table(REASON_HEAD, reason_rows(stops)),
        ]
    return parts


def control(name: str, label: str, options: Sequence[tuple[str, str]], value: str | None) -> html.Div:
    """Return a labelled list to choose from; `options` are pairs of value and words."""
    dropdown = dcc.Dropdown(
        id=name, options=listed(options), value=value, clearable=False, searchable=len(options) > 12
    )
    # The list names itself by its value alone; the group tells what the value is of.
    named: dict[str, Any] = {"aria-labelledby": f"{name}-label"}
    return html.Div(
        [html.Label(label, htmlFor=name, id=f"{name}-label"), dropdown],
        className="control search-control",
        role="group",
        **named,
    )


def listed(options: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"value": value, "label": said} for value, said in options]
