"""What a person may do from the dashboard: stop, cancel, retry, add a trial; given ``--allow-actions``.

Each is confirmed in the browser, asked of whoever runs the study through the store, and kept there as an
event. Without the option none of it exists: no button is drawn and no callback is registered.
"""

import time
from collections.abc import Callable

import yaml
from dash import Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from hpo.errors import HpoError, UsageError
from hpo.space import Candidate, SearchSpace
from hpo.store.store import Store
from hpo.store.values import Request
from hpo.trial import Trial, TrialState

_QUESTIONS = {
    "stop": "Start nothing new, and stop when the running trials are done?",
    "cancel": "Stop now? Running trials go back to the queue and lose what they have done.",
    "proceed": "Take back what was asked, so that the study goes on?",
}
_REQUESTS = {"stop": Request.DRAIN, "cancel": Request.CANCEL, "proceed": Request.NONE}
_WORDS = {"stop": "Stop", "cancel": "Cancel now", "proceed": "Go on after all"}


def study_actions(space: SearchSpace) -> html.Section:
    """Return the buttons of a study, and the form for a trial of one's own."""
    buttons = [
        dcc.ConfirmDialogProvider(html.Button(_WORDS[what]), id=f"action-{what}", message=_QUESTIONS[what])
        for what in _QUESTIONS
    ]
    example = "\n".join(f"{name}: {p.from_unit(0.5)}" for name, p in list(space.parameters.items())[:3])
    form = html.Details(
        [
            html.Summary("Add a trial of your own"),
            html.Label(
                ["one parameter a line, as ", html.Code("name: value")],
                htmlFor="action-values",
                className="hint",
            ),
            dcc.Textarea(id="action-values", placeholder=example, rows=5, className="action-values"),
            dcc.ConfirmDialogProvider(
                html.Button("Add the trial"),
                id="action-add",
                message="Add this trial? It counts in the budget.",
            ),
        ]
    )
    said = html.Div(id="action-said", role="status")
    return elements.section("Actions", html.Div(buttons, className="controls"), form, said)


def trial_actions(trial: Trial) -> list[Component]:
    """Return the button to try a failed trial again; nothing for any other."""
    if trial.state is not TrialState.FAILED:
        return []
    retry = dcc.ConfirmDialogProvider(
        html.Button("Try it again"),
        id="action-retry",
        message="Try it again as a new trial? It counts in the budget.",
    )
    return [html.Div([retry, html.Div(id="action-retry-said", role="status")], className="controls")]


def register(app: Dash, url: str | None) -> None:
    """Let the buttons act on the store at `url`, which is opened for writing only as long as that takes."""

    @app.callback(
        Output("action-said", "children"),
        *[Input(f"action-{what}", "submit_n_clicks") for what in (*_QUESTIONS, "add")],
        State("front-study", "data"),
        State("action-values", "value"),
        prevent_initial_call=True,
    )
    def act(*given: object) -> object:
        *_, name, text = given
        what = str(ctx.triggered_id).removeprefix("action-")
        if not ctx.triggered[0]["value"]:
            return no_update
        if what == "add":
            return _done(lambda: add(url, str(name), str(text or "")))
        return _done(lambda: request(url, str(name), _REQUESTS[what]))

    @app.callback(
        Output("action-retry-said", "children"),
        Input("action-retry", "submit_n_clicks"),
        State("trial-asked", "data"),
        prevent_initial_call=True,
    )
    def again(clicks: int | None, asked: dict[str, str | int]) -> object:
        if not clicks:
            return no_update
        return _done(lambda: retry(url, str(asked["name"]), int(asked["number"])))


def _done(act: Callable[[], str]) -> Component:
    try:
        return elements.notice(act())
    except HpoError as error:
        return elements.alert(error)


def request(url: str | None, name: str, wanted: Request) -> str:
    """Ask the coordinator of a study for something; return what will happen.

    Raises:
        UsageError: nobody runs the study.
        HpoError: the study or the store is not there.
    """
    with Store.open(url) as store:
        _coordinator(store, name)
        store.request(name, wanted, time.time())
    said = {Request.DRAIN: "Asked to stop.", Request.CANCEL: "Asked to cancel.", Request.NONE: "Taken back."}
    return said[wanted]


def retry(url: str | None, name: str, number: int) -> str:
    """Ask for a failed trial again; return what will happen.

    Raises:
        UsageError: the trial has not failed.
        HpoError: the study, the trial or the store is not there.
    """
    with Store.open(url) as store:
        trial = store.trial(name, number)
        if trial.state is not TrialState.FAILED:
            raise UsageError(f"trial {number} is {trial.state}", "only failed trials can be tried again")
        store.wish(name, trial.candidate, f"retry:{number}", time.time())
        return f"Asked to try trial {number} again{_when(store, name)}"


def add(url: str | None, name: str, text: str) -> str:
    """Ask for a trial of the candidate that a text describes; return what will happen.

    Raises:
        UsageError: the text is no list of parameters and values.
        HpoError: the candidate is outside the space, or the study or the store is not there.
    """
    with Store.open(url) as store:
        candidate = candidate_of(store.study(name).study.space, text)
        store.wish(name, candidate, "given:person", time.time())
        return f"Asked for {candidate}{_when(store, name)}"


def candidate_of(space: SearchSpace, text: str) -> Candidate:
    """Return the candidate of a text with a ``name: value`` a line.

    Raises:
        UsageError: it is no such text.
        InvalidStudy: a value is missing, unknown, or outside its parameter.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError:
        values = None
    if not isinstance(values, dict) or not all(
        isinstance(k, str) and isinstance(v, bool | int | float | str) for k, v in values.items()
    ):
        raise UsageError("this is no list of parameters", "write one a line: factorise.keep_ratio: 0.4")
    return space.candidate(values)


def _coordinator(store: Store, name: str) -> str:
    holder = store.holder(name)
    if holder is None or holder.expires_at <= time.time():
        raise UsageError(f"no coordinator runs study {name!r}", f"it goes on with: hpo resume {name}")
    return holder.owner


def _when(store: Store, name: str) -> str:
    try:
        _coordinator(store, name)
    except UsageError as error:
        return f"; {error.message}: {error.hint}"
    return "; it is the next one to start."
