"""The members of a front in a report: recipe, measurements, plan and healing of each."""

from collections.abc import Mapping

import plotly.graph_objects as go
from markupsafe import Markup

from dashboards import plan_bars, stage_bars
from dashboards.document import Part, element, figure_place, folding, pairs, section, table
from dashboards.front import Standing, knee_of, standing_of
from dashboards.healing import NONE, draw_healing, has_healed, healing_view
from dashboards.plan_bars import draw_plan
from dashboards.source import Snapshot
from dashboards.trial_details import TrialDetails
from dashboards.trial_parts import export_command
from dashboards.trial_rows import MEASUREMENT_HEAD, measurement_rows
from hpo.format import count_text, note_text, words
from hpo.trial import Trial

MOST = 10
"""Members that a report goes into."""


def chosen(now: Snapshot) -> tuple[Trial, ...]:
    """Return the members that a report goes into: all, or of many the knee and others evenly along the first
    objective, from the best on."""
    objectives = now.record.study.objectives
    standings = standing_of(objectives, now.trials)
    front = [t for t in now.trials if standings.get(t.number) is Standing.FRONT]
    first = objectives[0]
    front.sort(key=lambda t: (first.loss(t.value(first.metric) or 0.0), t.number))
    if len(front) <= MOST:
        return tuple(front)
    knee = knee_of(objectives, now.trials)
    others = [t for t in front if t.number != knee]
    kept = {others[i * (len(others) - 1) // (MOST - 2)].number for i in range(MOST - 1)} | {knee}
    return tuple(t for t in front if t.number in kept)


def members(now: Snapshot, details: Mapping[int, TrialDetails]) -> Part:
    """Return what a report says of the members for which there are details."""
    objectives = now.record.study.objectives
    front = sum(s is Standing.FRONT for s in standing_of(objectives, now.trials).values())
    shown = [t for t in chosen(now) if t.number in details]
    if not shown:
        return Part()
    knee = knee_of(objectives, now.trials)
    opened = knee if knee in {t.number for t in shown} else shown[0].number
    parts: list[Markup] = []
    if len(shown) < front:
        said = f"{len(shown)} of {count_text(front, 'member')}, evenly along the first objective."
        parts.append(element("p", said, "hint"))
    figures: dict[str, go.Figure] = {}
    for trial in shown:
        inside, drawn = _member(now, trial, details[trial.number])
        name = f"Trial {trial.number}{' (knee)' if trial.number == knee else ''}: {trial.candidate}"
        parts.append(folding(name, *inside, is_open=trial.number == opened))
        figures |= drawn
    return Part((section("Members of the front", *parts),), figures)


def _member(now: Snapshot, trial: Trial, details: TrialDetails) -> tuple[list[Markup], dict[str, go.Figure]]:
    known = {
        name: note_text(value if isinstance(value, float) else str(value))
        for name, value in trial.candidate.items
    }
    parts = [
        pairs(known, "facts") if known else element("p", "The dense model: nothing is done to it."),
        element("pre", export_command(now.record.study.name, trial.number), "command"),
        element("h3", "Measurements"),
        table(MEASUREMENT_HEAD, measurement_rows(trial, now.trials)),
    ]
    figures: dict[str, go.Figure] = {}
    for more in (_plan(trial, details), _healing(trial, details)):
        parts += more.markup
        figures |= more.figures
    if trial.stages:
        rows = stage_bars.stage_rows(stage_bars.stage_bars(trial.stages))
        parts += [element("h3", "Stages"), table(stage_bars.HEAD, rows)]
    return parts, figures


def _plan(trial: Trial, details: TrialDetails) -> Part:
    if not details.plan.bars:
        return Part()
    name, said = f"plan-{trial.number}", details.plan.sentence
    rows = table(plan_bars.HEAD, plan_bars.plan_rows(details.plan))
    parts = (
        element("h3", "What is kept of each layer"),
        element("p", said, "hint"),
        figure_place(name, f"bars: weights kept of each layer. {said}"),
        folding("The same as a table", rows),
    )
    return Part(parts, {name: draw_plan(details.plan)})


def _healing(trial: Trial, details: TrialDetails) -> Part:
    if not has_healed(trial):
        return Part()
    view = healing_view(trial, details.curve)
    title = element("h3", "Healing")
    if view is None:
        return Part((title, element("p", NONE, "hint")))
    name = f"healing-{trial.number}"
    place = figure_place(name, f"{words(view.loss)} and loss on text held out, by step")
    return Part((title, element("p", view.sentence, "hint"), place), {name: draw_healing(view)})
