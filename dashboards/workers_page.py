"""The workers page of a study: who runs what, since when, on what, and whether anybody is watching."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dash import Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

from dashboards import elements
from dashboards.frame import framed
from dashboards.routes import TrialRoute
from dashboards.source import Snapshot, StudySource
from dashboards.timeline import Timeline, draw_timeline, shortened, timeline
from dashboards.worker_log import logs_of
from dashboards.workers import Watch, Worker, attempts_of, end_of, watch, workers_of
from hpo.errors import HpoError
from hpo.format import count_text, duration_text, percent_text

_EVERY_MS = 2000
_HEAD = (
    "worker",
    "runs now",
    "since",
    "last sign of life",
    "idle",
    "trials",
    "failed",
    "lost",
    "retries",
    "device",
)
_IDLE_HINT = (
    "Idle: of the time the study was running since a worker's first start, the share in which it had no "
    "trial. Lost: attempts that came to no end. Retries: attempts at trials that had been lost before, here "
    "or on another worker."
)


@dataclass(frozen=True)
class Look:
    """What the page shows at one moment."""

    now: Snapshot
    watch: Watch
    workers: tuple[Worker, ...]
    timeline: Timeline

    @property
    def seen(self) -> str:
        """Differs whenever the figure would."""
        return f"{self.now.revision} {self.watch.is_alive}"


def look(source: StudySource, name: str, clock: float) -> Look:
    """Return the workers of a study as they stand at `clock`, in seconds since the epoch.

    Raises:
        NotFound: there is no such study.
        StoreError: the store cannot be read.
    """
    now, store = source.snapshot(name), source.store()
    log = logs_of(source).read(store, name, now.record.created_at)
    guard = watch(now.record, now.trials, store.holder(name), clock)
    until = end_of(log, now.trials, guard.is_alive, clock)
    attempts = attempts_of(now.trials, log.lost)
    workers = workers_of(now.trials, attempts, log, until)
    origin = attempts[0].start if attempts else now.record.created_at
    drawn = timeline(attempts, [w.name for w in workers], origin, until)
    return Look(now, guard, tuple(workers), drawn)


def layout(source: StudySource, name: str, search: str | None) -> html.Div:
    """Return the page as it stands.

    Raises:
        HpoError: there is no such study, or the store cannot be read.
    """
    here = look(source, name, time.time())
    return framed(
        here.now,
        "workers",
        dcc.Store(id="workers-name", data=name),
        dcc.Store(id="workers-seen", data=here.seen),
        dcc.Interval(id="workers-tick", interval=_EVERY_MS),
        html.Div(id="workers-notice"),
        html.Div(lease_parts(here.watch, name), id="workers-lease"),
        html.Div(worker_parts(here, name), id="workers-table"),
        elements.section(
            "Timeline",
            elements.graph("workers-timeline", draw_timeline(here.timeline, name)),
            html.P(here.timeline.caption, id="workers-caption", className="hint"),
            hint="A line for each worker, a bar for each attempt at a trial. Click a bar to open the trial.",
        ),
    )


def lease_parts(guard: Watch, name: str) -> list[Component]:
    """Return who may write the study, and what to do where nobody does."""
    parts: list[Component] = []
    if guard.is_deserted:
        parts.append(elements.notice(*_deserted(guard), f"hpo resume {shlex.quote(name)}", kind="error"))
    lease = guard.lease
    if lease is None:
        if not guard.is_deserted:
            parts.append(html.P("No coordinator holds this study: nothing runs.", className="hint"))
        return parts
    ends = "lease expires" if guard.is_alive else "lease expired"
    pairs: dict[str, Component | str] = {
        "coordinator": lease.owner,
        ends: elements.moment(lease.expires_at),
        "epoch": str(lease.epoch),
    }
    facts = [html.Div([html.Dt(k), html.Dd(v)], className="fact") for k, v in pairs.items()]
    hint = (
        "It renews its lease while it lives; until that expires no other can write the study. "
        "The epoch counts how often the study was taken on."
    )
    return [*parts, elements.section("Coordinator", html.Dl(facts, className="facts"), hint=hint)]


def _deserted(guard: Watch) -> tuple[str, str]:
    trials = count_text(guard.running, "trial")
    marked = (
        f", though {trials} {'is' if guard.running == 1 else 'are'} marked as running"
        if guard.running
        else ""
    )
    if guard.lease is None:
        said = f"Nobody runs this study{marked}."
    else:
        ago = duration_text(guard.now - guard.lease.expires_at)
        said = f"The coordinator is gone: its lease expired {ago} ago{marked}."
    return said, "Go on with the study; what was running is tried again:"


def worker_parts(here: Look, name: str) -> list[Component]:
    """Return the table of workers."""
    if not here.workers:
        why = "No worker has begun a trial yet."
        waiting = sum(t.state == "waiting" for t in here.now.trials)
        hint = f"{count_text(waiting, 'trial')} waiting." if waiting else "Trials are asked for once it runs."
        return [elements.section("Workers", elements.notice(why, hint))]
    rows = [_row(worker, here, name) for worker in here.workers]
    parts: list[Component] = [elements.table(_HEAD, rows)]
    if lost := _lost_rows(here.workers):
        parts += [
            html.H3("Attempts that came to no end"),
            elements.table(("worker", "how often", "why"), lost),
        ]
    return [elements.section("Workers", *parts, hint=_IDLE_HINT)]


def _row(worker: Worker, here: Look, name: str) -> Sequence[elements.Children]:
    since = worker.now[-1].start if worker.now else None
    return (
        html.Span(shortened(worker.name, 40), title=worker.name),
        _now(worker, here, name),
        elements.moment(since),
        elements.moment(worker.last_sign),
        "–" if worker.idle is None else percent_text(worker.idle),
        f"{worker.trials:,}",
        f"{worker.failed:,}",
        f"{sum(worker.lost.values()):,}",
        f"{worker.retries:,}",
        worker.device or here.now.record.environment.get("device", "") or "–",
    )


def _now(worker: Worker, here: Look, name: str) -> list[Component | str]:
    if not worker.now:
        return ["nothing"]
    parts: list[Component | str] = []
    for attempt in worker.now:
        link = dcc.Link(f"trial {attempt.trial}", href=TrialRoute(name, attempt.trial).path)
        again = f", attempt {attempt.attempt}" if attempt.attempt > 1 else ""
        parts += [", " if parts else "", link, again]
    doubt = "" if here.watch.is_alive else " (nobody is watching)"
    return [*parts, f", {count_text(worker.stages, 'stage')} done{doubt}"]


def _lost_rows(workers: Sequence[Worker]) -> list[tuple[str, str, str]]:
    """Return worker, how often and why, the most frequent first within a worker."""
    return [
        (shortened(worker.name, 40), str(count), shortened(why, 300))
        for worker in workers
        for why, count in sorted(worker.lost.items(), key=lambda item: -item[1])
    ]


def register(app: Dash, source: StudySource) -> None:
    """Keep the page up to date, and let bars open their trials."""

    @app.callback(
        Output("workers-notice", "children"),
        Output("workers-lease", "children"),
        Output("workers-table", "children"),
        Output("workers-timeline", "figure"),
        Output("workers-caption", "children"),
        Output("workers-seen", "data"),
        Output("study-state", "children", allow_duplicate=True),
        Input("workers-tick", "n_intervals"),
        State("workers-name", "data"),
        State("workers-seen", "data"),
        prevent_initial_call=True,
    )
    def refresh(_tick: int, name: str, seen: str) -> tuple[object, ...]:
        try:
            here = look(source, name, time.time())
        except HpoError as error:
            return (elements.alert(error), *[no_update] * 6)
        if here.seen == seen and not here.watch.is_alive:
            return (None, lease_parts(here.watch, name), *[no_update] * 5)
        table = worker_parts(here, name)  # idle shares and the lease move on even when no trial does
        above = None, lease_parts(here.watch, name), table
        if here.seen == seen:
            return (*above, *[no_update] * 4)
        figure = draw_timeline(here.timeline, name)
        return (*above, figure, here.timeline.caption, here.seen, elements.badge(here.now.record.state))

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Input("workers-timeline", "clickData"),
        State("workers-name", "data"),
        prevent_initial_call=True,
    )
    def open_trial(clicked: object, name: str) -> object:
        match clicked:
            case {"points": [{"customdata": int(number)}, *_]}:
                return TrialRoute(name, number).path
        return no_update
