"""The page of a trial: what was tried, what became of it, and how to take it away."""

from collections.abc import Sequence

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements, trial_parts, trial_story
from dashboards.actions import trial_actions
from dashboards.plan_bars import Of, draw_plan
from dashboards.routes import StudyRoute
from dashboards.source import Snapshot, StudySource
from dashboards.trial_details import TrialDetails, read_details, read_plan
from dashboards.trial_parts import export_command
from hpo.errors import HpoError, NotFound
from hpo.trial import Trial

__all__ = ["export_command", "layout", "register"]

_EVERY_MS = 2000


def layout(source: StudySource, name: str, number: int, allow_actions: bool = False) -> html.Div:
    """Return the page as it stands.

    Raises:
        HpoError: there is no such study or trial, or the store cannot be read.
    """
    now = source.snapshot(name)
    trial = _trial(now, number)
    standing = trial_parts.place(now, trial)
    details = read_details(source.store(), now.record.study, now.trials, number)
    return html.Div(
        [
            dcc.Store(id="trial-asked", data={"name": name, "number": number}),
            dcc.Store(id="trial-seen", data=_seen(now, trial, standing)),
            dcc.Interval(id="trial-tick", interval=_EVERY_MS),
            elements.crumbs(("Studies", "/"), (name, StudyRoute(name).path), (f"trial {number}", "")),
            html.Div(id="trial-notice"),
            html.Div(above(now, trial, standing), id="trial-body"),
            *(trial_actions(trial) if allow_actions else []),
            trial_parts.plan(trial, details.plan),  # it never changes, and keeps how it is looked at
            html.Div(below(now, trial, details), id="trial-below"),
        ]
    )


def _trial(now: Snapshot, number: int) -> Trial:
    for trial in now.trials:
        if trial.number == number:
            return trial
    last = now.trials[-1].number if now.trials else None
    hint = "it has no trials yet" if last is None else f"its trials are numbered 0 to {last}"
    raise NotFound(f"study {now.record.study.name!r} has no trial {number}", hint)


def _seen(now: Snapshot, trial: Trial, standing: Sequence[str]) -> str:
    """Return the study's revision and, after a bar, what changes whenever the page would."""
    known = len(trial.stages), len(trial.measurements), len(trial.notes)
    return f"{now.revision}|{trial.attempt} {trial.state} {' '.join(standing)} {known}"


def above(now: Snapshot, trial: Trial, standing: Sequence[str]) -> list[Component]:
    """Return what stands above the plan and can change: how the trial stands, and its numbers."""
    parts: list[Component] = [trial_parts.title(now, trial, standing), *trial_parts.state(trial)]
    if figures := trial_parts.glance(now, trial):
        parts.append(elements.tiles(figures))
    parts += [trial_parts.recipe(trial), trial_parts.export(now, trial)]
    return [*parts, trial_parts.measurements(now, trial)]


def below(now: Snapshot, trial: Trial, details: TrialDetails) -> list[Component]:
    """Return what stands below the plan: how it came about, and what is like it."""
    return [
        *trial_story.healing(trial, details.curve),
        trial_story.stages(trial),
        trial_story.course(trial, details.events),
        trial_story.lineage(now, trial),
        trial_story.nearest(now, trial),
    ]


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date, and let its plan be looked at in two ways."""

    @app.callback(
        Output("trial-notice", "children"),
        Output("trial-body", "children"),
        Output("trial-below", "children"),
        Output("trial-seen", "data"),
        Input("trial-tick", "n_intervals"),
        State("trial-asked", "data"),
        State("trial-seen", "data"),
        prevent_initial_call=True,
    )
    def refresh(_tick: int, asked: dict[str, str | int], seen: str) -> tuple[object, ...]:
        name, number = str(asked["name"]), int(asked["number"])
        try:
            now = source.snapshot(name)
            trial = _trial(now, number)
            before, _, shown = seen.partition("|")
            if before == now.revision:
                return None, no_update, no_update, no_update
            standing = trial_parts.place(now, trial)
            current = _seen(now, trial, standing)
            if current.partition("|")[2] == shown:
                return None, no_update, no_update, current
            details = read_details(source.store(), now.record.study, now.trials, number)
            return None, above(now, trial, standing), below(now, trial, details), current
        except HpoError as error:
            return elements.alert(error), no_update, no_update, no_update

    @app.callback(
        Output("plan-graph", "figure"),
        Input("plan-of", "value"),
        State("trial-asked", "data"),
        prevent_initial_call=True,
    )
    def redraw_plan(of: Of, asked: dict[str, str | int]) -> object:
        try:
            now = source.snapshot(str(asked["name"]))
            bars = read_plan(source.store(), now.record.study, now.trials, int(asked["number"]))
        except HpoError:
            return no_update  # the next tick says what is wrong
        return draw_plan(bars, of)
