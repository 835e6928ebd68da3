"""Progress of a long step: a bar on a terminal, a line now and then elsewhere, always on stderr."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, float], None]
"""Told of each step done, counted from 1, and its loss in nats per token."""


@contextmanager
def steps_shown(title: str, steps: int, report: Report | None = None) -> Iterator[Report]:
    """Give what to call after each of `steps` steps: `report` if there is one, else a display."""
    if report is not None:
        yield report
    elif sys.stderr.isatty():
        with _bar(title, steps) as shown:
            yield shown
    else:
        yield _lines(title, steps)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the bars of transformers off the terminal for a while; they come and go within a second."""
    from transformers.utils import logging  # heavy, and imported already by whoever calls this

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _bar(title: str, steps: int) -> Iterator[Report]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=steps)
        yield lambda step, loss: bar.update(task, completed=step)


def _lines(title: str, steps: int) -> Report:
    every = max(1, steps // 5)

    def shown(step: int, loss: float) -> None:
        if step % every == 0 or step == steps:
            _line(f"{title}: step {step} of {steps}, {loss:.2f} nats per token")

    return shown


def _line(text: str) -> None:
    """Say something to people, or as a record where the log is for programs."""
    if os.environ.get("HPO_LOG_FORMAT") == "json":
        logging.getLogger(__name__).info("%s", text)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201  # the display itself
