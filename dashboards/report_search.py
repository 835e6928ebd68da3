"""The search of a study in a report: how far its model is to be trusted, what matters, what was stopped."""

import plotly.graph_objects as go

from dashboards.calibration import calibrations, draw_calibration
from dashboards.document import Part, bullets, element, figure_place, section, table
from dashboards.early_stops import REASON_HEAD, STAGE_HEAD, early_stops, reason_rows, stage_rows
from dashboards.importance import draw_importances, importances
from dashboards.source import Snapshot
from dashboards.summary import MODEL_HEAD, MODEL_HINT, model_rows
from hpo.format import words


def search_parts(now: Snapshot) -> list[Part]:
    """Return the sections on the search; each only where there is something to say."""
    return [part for part in (_model(now), _importance(now), _stopped(now)) if part.markup]


def _model(now: Snapshot) -> Part:
    if not now.skills:
        return Part()
    found = calibrations(now.skills)
    figures: dict[str, go.Figure] = {
        f"calibration-{one.metric}": draw_calibration(one) for one in found if one.points
    }
    places = [
        figure_place(name, f"{words(name.removeprefix('calibration-'))}: foretold against measured")
        for name in figures
    ]
    shown = [element("p", one.shown, "hint") for one in found if one.points and one.shown]
    inside = (
        element("p", MODEL_HINT, "hint"),
        table(MODEL_HEAD, model_rows(now.skills)),
        bullets([one.words for one in found], "said"),
        *places,
        *shown,
    )
    return Part((section("The search's model", *inside),), figures)


def _importance(now: Snapshot) -> Part:
    study = now.record.study
    found = importances(study.space, study.objectives, now.trials)
    if found is None:
        return Part()
    place = figure_place("importance", f"heat map. {found.words}", is_wide=True)
    said = element("p", found.words), place, element("p", found.caption, "hint")
    return Part((section("What matters", *said),), {"importance": draw_importances(found)})


def _stopped(now: Snapshot) -> Part:
    stops = early_stops(now.trials)
    if not stops.stopped:
        return Part()
    tables = table(STAGE_HEAD, stage_rows(stops)), table(REASON_HEAD, reason_rows(stops))
    return Part((section("Stopped early", element("p", stops.words), *tables),))
