"""What a person sees while a study runs: a live table on a terminal, plain lines in a pipe."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.cli.options import say
from hpo.format import count_text, duration_text, value_text
from hpo.run.heartbeat import LEASE_S
from hpo.run.launch import Watcher
from hpo.run.ledger import Listener
from hpo.store.spending import Spent, Work, spent_of
from hpo.store.store import Store
from hpo.store.values import EventKind
from hpo.study import Study
from hpo.trial import Trial, TrialState
from hpo.watch.logs import FORMAT_ENVIRONMENT, LogFormat, configure, format_of
from hpo.watch.metrics import StudyMetrics, served
from hpo.watch.study_log import StudyLog

_RECENT = 8


@dataclass(frozen=True)
class Telling:
    """To whom else than the person at the terminal a run is told, as the command line asks for it."""

    storage: str | None = None
    """Address of the store, as given."""
    log_format: str | None = None
    log_file: Path | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"


@contextmanager
def watching(store: Store, study: Study, *, quiet: bool, telling: Telling | None = None) -> Iterator[Watcher]:
    """Yield who is told of progress. With `quiet`, plain lines go to standard error.

    Raises:
        UsageError: there is no such log format, a file that cannot be written, a port that is taken.
    """
    wanted = telling or Telling()
    log_format = format_of(wanted.log_format)
    os.environ[FORMAT_ENVIRONMENT] = log_format  # workers log alike
    configure(log_format, wanted.log_file, [wanted.storage or ""])
    log = StudyLog(study)
    with ExitStack() as stack:
        shown = stack.enter_context(_shown(store, study, quiet=quiet, in_json=log_format is LogFormat.JSON))
        listeners = [log.hear, *([] if shown is None else [shown.listener])]
        tellers = [log.say, *([] if shown is None else [shown.say])]
        if wanted.metrics_port is not None:
            metrics = StudyMetrics(stack.enter_context(_reading(wanted.storage)), study, LEASE_S)
            place = stack.enter_context(served(metrics, wanted.metrics_port, wanted.metrics_host))
            listeners.append(metrics.hear)
            _to_all(tellers, f"figures for Prometheus: {place}")
        yield Watcher(partial(_to_all, tellers), partial(_all_hear, listeners))


def _to_all(tellers: Sequence[Callable[[str], None]], text: str) -> None:
    for tell in tellers:
        tell(text)


def _all_hear(listeners: Sequence[Listener], kind: EventKind, trial: Trial) -> None:
    for listener in listeners:
        listener(kind, trial)


def _reading(storage: str | None) -> Store:
    """Open the store once more, so that a scrape neither waits for long nor holds up the coordinator."""
    return Store.open(storage, read_only=True)


@contextmanager
def _shown(store: Store, study: Study, *, quiet: bool, in_json: bool) -> Iterator[Watcher | None]:
    """Yield what shows the run to a person; nothing where programs are told instead."""
    if in_json:
        yield None
    elif quiet or not sys.stdout.isatty():
        lines = PlainLines(study, sys.stderr if quiet else sys.stdout)
        yield Watcher(say, lines.tell)
    else:
        table = LiveTable(store, study)
        with table:
            yield Watcher(table.say, table.tell)


def summary_of(study: Study, trial: Trial) -> str:
    """Return a trial's objectives, or its failure, in one line."""
    if trial.state is TrialState.FAILED:
        return f"{trial.cause}: {trial.message.splitlines()[0] if trial.message else ''}"
    values = []
    for o in study.objectives:
        found = trial.measurement(o.metric)
        if found is not None:
            values.append(f"{o.metric.replace('_', ' ')} {value_text(found.value, found.unit)}")
    return ", ".join(values)


class PlainLines:
    """One line when a trial starts and one when it is over."""

    def __init__(self, study: Study, stream: TextIO) -> None:
        self._study, self._stream, self._final = study, stream, 0

    def tell(self, kind: EventKind, trial: Trial) -> None:
        if kind is EventKind.STARTED:
            self._line(f"trial {trial.number} started on {trial.worker}: {trial.candidate}")
        elif kind is EventKind.REQUEUED:
            self._line(f"trial {trial.number} goes back to the queue, attempt {trial.attempt}")
        elif trial.state.is_final:
            self._final += 1
            seconds = duration_text(trial.seconds)
            self._line(f"trial {trial.number} {trial.state} in {seconds}: {summary_of(self._study, trial)}")

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class LiveTable:
    """The running trials, the last ones that are over, and how far the budget is used."""

    def __init__(self, store: Store, study: Study) -> None:
        self._store, self._study = store, study
        known = store.trials(study.name) if any(s.name == study.name for s in store.studies()) else ()
        self._trials = {trial.number: trial for trial in known}
        self._message = ""
        self._begun: Spent | None = None
        """What was spent when this run began; known from its first news on."""
        self._since = time.monotonic()
        self._live = Live(console=Console(), get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._message = text

    def tell(self, kind: EventKind, trial: Trial) -> None:
        if self._begun is None or kind in (EventKind.REQUEUED, EventKind.FAILED):
            self._look_back()
        self._trials[trial.number] = trial
        self._message = ""

    def _look_back(self) -> None:
        """Read what earlier runs spent, the first time, and what is lost of this one's."""
        record, lost = self._store.study(self._study.name), self._store.lost_work(self._study.name)
        if self._begun is None:
            self._begun, self._since = spent_of(record, (), lost), time.monotonic()
        else:
            self._begun = replace(self._begun, work=lost)

    def _spent(self) -> Spent:
        trials = list(self._trials.values())
        begun = self._begun or Spent(0, 0.0, Work(), 0.0)
        hours = begun.hours + (time.monotonic() - self._since) / 3600
        return replace(begun, trials=len(trials), hours=hours, work=begun.work + Work.of_trials(trials))

    def _render(self) -> Group:
        trials = list(self._trials.values())
        final = [t for t in trials if t.state.is_final]
        running = [t for t in trials if t.state is TrialState.RUNNING]
        recent = sorted(final, key=lambda t: t.finished_at or 0.0)[-_RECENT:]
        table = Table(box=None, pad_edge=False, expand=True)
        for column in ("trial", "state", "time", "candidate", "result"):
            table.add_column(column, no_wrap=column in ("trial", "state", "time"))
        for t in [*recent, *running]:
            spent = t.seconds if t.state.is_final else time.time() - (t.started_at or time.time())
            table.add_row(
                str(t.number),
                Text(str(t.state), _COLOURS.get(t.state, "")),
                duration_text(spent),
                Text(str(t.candidate)),
                Text(summary_of(self._study, t)),
            )
        used = self._spent()
        fullest = max(used.uses(self._study.budget), key=lambda use: use.share)
        head = Text(
            f"study {self._study.name}: {count_text(len(final), 'trial')} over; "
            f"spent {used.text(self._study.budget)}   {self._message}"
        )
        bar = ProgressBar(total=fullest.of, completed=min(fullest.spent, fullest.of))
        return Group(head, bar, table)


_COLOURS = {
    TrialState.COMPLETED: "green",
    TrialState.FAILED: "red",
    TrialState.STOPPED: "yellow",
    TrialState.RUNNING: "cyan",
}
