"""What a trial is and what it came to: the upper parts of its page."""

import shlex
from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import elements, plan_bars
from dashboards.front import Standing, knee_of, standing_of
from dashboards.plan_bars import Of, PlanBars, draw_plan
from dashboards.routes import TrialRoute
from dashboards.source import Snapshot
from dashboards.trial_rows import MEASUREMENT_HEAD, measurement_rows, state_text
from hpo.format import note_text, value_text, words
from hpo.trial import Trial, TrialState


def place(now: Snapshot, trial: Trial) -> tuple[str, ...]:
    """Return how a trial stands among the others, in words; nothing while it has not been completed."""
    objectives = now.record.study.objectives
    standings = standing_of(objectives, now.trials)
    standing = standings.get(trial.number)
    if standing is None:
        return ()
    if standing is not Standing.FRONT:
        return (str(standing),)
    # Of the front and the dense model, which limits may be relative to, the front is the same.
    chief = [t for t in now.trials if standings.get(t.number) is Standing.FRONT or t.is_dense]
    return ("on the front", "knee") if knee_of(objectives, chief) == trial.number else ("on the front",)


def title(now: Snapshot, trial: Trial, standing: Sequence[str]) -> html.Div:
    """Return the number of a trial and how it stands; `standing` as `place` has it."""
    badges = [elements.badge(trial.state), *map(elements.badge, standing)]
    return html.Div([html.H1(f"Trial {trial.number}"), *badges, _beside(now, trial)], className="title")


def _beside(now: Snapshot, trial: Trial) -> html.Nav:
    """Return the links to the trials before and after, where there are any."""
    known = {now.trials[0].number, now.trials[-1].number}
    links = []
    for label, number in (("‹ previous", trial.number - 1), ("next ›", trial.number + 1)):
        if min(known) <= number <= max(known):
            links.append(dcc.Link(label, href=TrialRoute(now.record.study.name, number).path))
    return html.Nav(links, className="beside", **_label("trials beside this one"))


def state(trial: Trial) -> list[Component]:
    """Return why a trial is as it is, where that has to be said."""
    match trial.state:
        case TrialState.FAILED:
            return [elements.notice(f"It {state_text(trial)}.", trial.message, kind="error")]
        case TrialState.WAITING:
            return [elements.notice("It waits for a free worker.", "This page shows it when it starts.")]
        case TrialState.RUNNING:
            done = ", ".join(words(stage.stage) for stage in trial.stages)
            said = f"Done so far: {done}." if done else "No stage is done yet."
            return [elements.notice(f"It runs on {trial.worker or 'a worker'}.", said)]
    if trial.message:
        return [elements.notice(f"It was {trial.state}: {trial.message}")]
    return []


def glance(now: Snapshot, trial: Trial) -> dict[str, str]:
    """Return the values of the objectives."""
    measured = [m for o in now.record.study.objectives if (m := trial.measurement(o.metric)) is not None]
    return {words(m.metric): value_text(m.value, m.unit) for m in measured}


def recipe(trial: Trial) -> html.Section:
    """Return the candidate."""
    if trial.is_dense:
        what: Component = html.P(
            "Nothing is done: this is the dense model, which all others are compared with."
        )
    else:
        what = elements.facts({name: note_text(_plain(value)) for name, value in trial.candidate.items})
    return elements.section("Recipe", what)


def _plain(value: object) -> float | str:
    return value if isinstance(value, float) else str(value)


def export(now: Snapshot, trial: Trial) -> html.Section:
    """Return the command that writes the model, ready to copy."""
    heading = "Take it away"
    if trial.state is not TrialState.COMPLETED:
        return elements.section(heading, html.P("Only a completed trial can be exported.", className="hint"))
    command = export_command(now.record.study.name, trial.number)
    copy = dcc.Clipboard(target_id="export-command", title="copy the command", className="copy")
    line = html.Div([html.Pre(command, id="export-command", className="command"), copy], className="copyable")
    return elements.section(
        heading, line, hint="Writes the compressed model and its card to a new directory."
    )


def export_command(name: str, number: int) -> str:
    """Return the command that writes a trial's model to a directory, ready for a shell."""
    return f"hpo export {shlex.quote(name)} {number} --out {shlex.quote(f'{name}-{number}')}"


def measurements(now: Snapshot, trial: Trial) -> html.Section:
    """Return every measurement with its spread and where it comes from."""
    heading = "Measurements"
    if not trial.measurements:
        why = {
            TrialState.WAITING: "Nothing is measured before it runs.",
            TrialState.RUNNING: "Nothing is measured yet.",
        }.get(trial.state, "Nothing was measured.")
        return elements.section(heading, html.P(why, className="hint"))
    return elements.section(
        heading,
        elements.table(MEASUREMENT_HEAD, measurement_rows(trial, now.trials)),
        hint="± is one standard deviation over the repeats; exact values follow from the plan and have none.",
    )


PLAN_TITLE = "What is kept of each layer"


def plan(trial: Trial, bars: PlanBars, of: Of = "weights") -> html.Section:
    """Return the plan as a figure, with a switch, and as a table."""
    if not bars.bars:
        why = "All of it." if trial.is_dense else "Nothing is known of its plan."
        return elements.section(PLAN_TITLE, html.P(why, className="hint"))
    switch = dcc.RadioItems(
        id="plan-of",
        options=[{"label": f"share of {of} kept", "value": of} for of in plan_bars.OF],
        value=of,
        inline=True,
        className="radio",
    )
    rows = html.Details(
        [html.Summary("The same as a table"), elements.table(plan_bars.HEAD, plan_bars.plan_rows(bars))],
        className="as-table",
    )
    figure = html.Div(
        elements.graph("plan-graph", draw_plan(bars, of)),
        role="figure",
        **_label("bars: what the plan keeps of each layer; the table below says the same"),
    )
    return elements.section(PLAN_TITLE, switch, figure, rows, hint=bars.sentence)


def _label(text: str) -> dict[str, Any]:
    return {"aria-label": text}
