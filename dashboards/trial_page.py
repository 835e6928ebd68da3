"""The page of a trial: what was tried, what became of it, and how to take it away."""

import shlex
from collections.abc import Sequence

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from dashboards.front import Standing, knee_of, standing_of
from dashboards.plan_bars import draw_plan, plan_bars
from dashboards.routes import StudyRoute
from dashboards.source import Snapshot, StudySource
from dashboards.trial_rows import measurement_text, state_text
from hpo.errors import HpoError, NotFound
from hpo.format import duration_text, note_text, number_text, percent_text, time_text, value_text, words
from hpo.problem import dense_trial
from hpo.trial import LayerRecord, Trial, TrialState

_EVERY_MS = 2000


def layout(source: StudySource, name: str, number: int) -> html.Div:
    """Return the page as it stands.

    Raises:
        HpoError: there is no such study or trial, or the store cannot be read.
    """
    now = source.snapshot(name)
    trial = _trial(now, number)
    return html.Div(
        [
            dcc.Store(id="trial-asked", data={"name": name, "number": number}),
            dcc.Store(id="trial-seen", data=_seen(now, trial)),
            dcc.Interval(id="trial-tick", interval=_EVERY_MS),
            elements.crumbs(("Studies", "/"), (name, StudyRoute(name).path), (f"trial {number}", "")),
            html.Div(id="trial-notice"),
            html.Div(body(now, trial, source.plan(name, number)), id="trial-body"),
        ]
    )


def _trial(now: Snapshot, number: int) -> Trial:
    for trial in now.trials:
        if trial.number == number:
            return trial
    last = now.trials[-1].number if now.trials else None
    hint = "it has no trials yet" if last is None else f"its trials are numbered 0 to {last}"
    raise NotFound(f"study {now.record.study.name!r} has no trial {number}", hint)


def _seen(now: Snapshot, trial: Trial) -> str:
    """Return what changes whenever the page would."""
    standing = standing_of(now.record.study.objectives, now.trials).get(trial.number, "")
    known = len(trial.stages), len(trial.measurements), len(trial.notes)
    return f"{trial.attempt} {trial.state} {standing} {known}"


def body(now: Snapshot, trial: Trial, layers: Sequence[LayerRecord]) -> list[Component]:
    """Return everything of the page that can change."""
    parts: list[Component] = [_title(now, trial)]
    if trial.state is TrialState.FAILED:
        parts.append(elements.notice(f"It {state_text(trial)}.", trial.message, kind="error"))
    elif trial.message:
        parts.append(elements.notice(f"It was {trial.state}: {trial.message}"))
    if figures := _glance(now, trial):
        parts.append(elements.tiles(figures))
    parts.append(elements.section("Recipe", _recipe(trial)))
    parts.append(_export(now, trial))
    if trial.measurements:
        parts.append(elements.section("Measurements", _measurements(now, trial)))
    parts += [_plan(trial, layers), elements.section("Course", *_course(trial))]
    return parts


def _title(now: Snapshot, trial: Trial) -> html.Div:
    objectives = now.record.study.objectives
    standing = standing_of(objectives, now.trials).get(trial.number)
    badges = [elements.badge(trial.state)]
    if standing is not None:
        badges.append(elements.badge("on the front" if standing is Standing.FRONT else standing))
    if knee_of(objectives, now.trials) == trial.number:
        badges.append(elements.badge("knee"))
    return html.Div([html.H1(f"Trial {trial.number}"), *badges], className="title")


def _glance(now: Snapshot, trial: Trial) -> dict[str, str]:
    measured = [m for o in now.record.study.objectives if (m := trial.measurement(o.metric)) is not None]
    return {words(m.metric): value_text(m.value, m.unit) for m in measured}


def _recipe(trial: Trial) -> Component:
    if trial.is_dense:
        return html.P("Nothing is done: this is the dense model, which all others are compared with.")
    return elements.facts(
        {
            name: number_text(value) if isinstance(value, float) else str(value)
            for name, value in trial.candidate.items
        }
    )


def _export(now: Snapshot, trial: Trial) -> html.Section:
    title = "Take it away"
    if trial.state is not TrialState.COMPLETED:
        return elements.section(title, html.P("Only a completed trial can be exported.", className="hint"))
    command = export_command(now.record.study.name, trial.number)
    copy = dcc.Clipboard(target_id="export-command", title="copy the command", className="copy")
    line = html.Div([html.Pre(command, id="export-command", className="command"), copy], className="copyable")
    return elements.section(title, line, hint="Writes the compressed model and its card to a new directory.")


def export_command(name: str, number: int) -> str:
    """Return the command that writes a trial's model to a directory, ready for a shell."""
    return f"hpo export {shlex.quote(name)} {number} --out {shlex.quote(f'{name}-{number}')}"


def _measurements(now: Snapshot, trial: Trial) -> html.Div:
    dense = dense_trial(now.trials)
    rows = []
    for m in trial.measurements:
        base = dense.value(m.metric) if dense else None
        ratio = f"{number_text(m.value / base, 3)} ×" if base else "–"
        repeats = str(m.repeats) if m.device else "–"
        rows.append(
            (words(m.metric), measurement_text(m), ratio, repeats, str(m.source), m.device or "–", m.note)
        )
    return elements.table(("metric", "value", "of dense", "repeats", "source", "device", "how"), rows)


def _plan(trial: Trial, layers: Sequence[LayerRecord]) -> html.Section:
    title = "What is kept of each layer"
    if not layers:
        why = "All of it." if trial.is_dense else "Nothing is known of its plan."
        return elements.section(title, html.P(why, className="hint"))
    bars = plan_bars(layers)
    return elements.section(
        title,
        elements.graph("plan-graph", draw_plan(bars)),
        hint=f"{percent_text(bars.share)} of the parameters of these layers.",
    )


def _course(trial: Trial) -> list[Component]:
    stages = [(stage.stage, duration_text(stage.seconds)) for stage in trial.stages]
    parts: list[Component] = []
    if stages:
        rows = [*stages, ("all", duration_text(trial.seconds))]
        parts.append(elements.table(("stage", "worker time"), rows))
    pairs = {
        "asked by": trial.origin,
        "attempt": str(trial.attempt),
        "worker": trial.worker or "–",
        "asked at": time_text(trial.created_at),
        "started at": time_text(trial.started_at),
        "finished at": time_text(trial.finished_at),
        "plan": trial.plan_hash or "–",
    }
    return [*parts, elements.facts(pairs | {words(k): note_text(v) for k, v in trial.notes.items()})]


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date."""

    @app.callback(
        Output("trial-notice", "children"),
        Output("trial-body", "children"),
        Output("trial-seen", "data"),
        Input("trial-tick", "n_intervals"),
        State("trial-asked", "data"),
        State("trial-seen", "data"),
        prevent_initial_call=True,
    )
    def refresh(_tick: int, asked: dict[str, str | int], seen: str) -> tuple[object, object, object]:
        name, number = str(asked["name"]), int(asked["number"])
        try:
            now = source.snapshot(name)
            trial = _trial(now, number)
            if _seen(now, trial) == seen:
                return None, no_update, no_update
            return None, body(now, trial, source.plan(name, number)), _seen(now, trial)
        except HpoError as error:
            return elements.alert(error), no_update, no_update
