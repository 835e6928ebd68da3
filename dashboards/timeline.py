"""Who ran what and when: attempts at trials -> bars -> figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboards import palette
from dashboards.figures import blank, styled
from dashboards.workers import Attempt, Outcome
from hpo.format import count_text, duration_text, escaped

LATEST = 500
"""Attempts that are drawn."""

MOST_WORKERS = 40
"""Workers that are drawn, those that began something last."""

_LOOKS = {
    Outcome.COMPLETED: (palette.BLUE, ""),
    Outcome.RUNNING: (palette.GREEN, "."),
    Outcome.STOPPED: (palette.GREY, "/"),
    Outcome.FAILED: (palette.VERMILLION, "x"),
    Outcome.LOST: (palette.PURPLE, "\\"),
    Outcome.BROKEN_OFF: (palette.GREY, "-"),
}
"""Colour and hatching of each outcome: neither is needed to tell them apart by the other."""

_UNITS = ((14_400.0, 3600.0, "hours"), (600.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
"""From this span on, in seconds: divide by this, and call it so."""


@dataclass(frozen=True)
class Bar:
    """An attempt; times are in seconds since `Timeline.origin`."""

    worker: str
    trial: int
    attempt: int
    start: float
    end: float
    outcome: Outcome


@dataclass(frozen=True)
class Timeline:
    """What is drawn of a study's attempts."""

    bars: tuple[Bar, ...]
    """In the order in which they began."""
    workers: tuple[str, ...]
    """From the top of the figure down."""
    hidden: int
    """Earlier attempts, or of other workers, that are not drawn."""
    origin: float

    @property
    def caption(self) -> str:
        if not self.bars:
            return ""
        counts = [(str(o), sum(b.outcome is o for b in self.bars)) for o in Outcome]
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts if count)
        shown = count_text(len(self.bars), "attempt")
        hidden = f" the latest of {len(self.bars) + self.hidden:,}" if self.hidden else ""
        return f"{shown}{',' if hidden else ''}{hidden} on {count_text(len(self.workers), 'worker')}: {said}."


def timeline(attempts: Sequence[Attempt], names: Sequence[str], origin: float, until: float) -> Timeline:
    """Return the latest attempts as bars, by the workers `names` in this order; what runs ends `until`."""
    latest = list(dict.fromkeys(a.worker for a in reversed(attempts[-LATEST:])))[:MOST_WORKERS]
    drawn = [a for a in attempts[-LATEST:] if a.worker in latest]
    return Timeline(
        bars=tuple(
            Bar(
                a.worker,
                a.trial,
                a.attempt,
                a.start - origin,
                max(a.start, until if a.end is None else a.end) - origin,
                a.outcome,
            )
            for a in drawn
        ),
        workers=tuple(name for name in names if name in latest),
        hidden=len(attempts) - len(drawn),
        origin=origin,
    )


def draw_timeline(shown: Timeline, revision: str) -> go.Figure:
    """Return the figure: a line for each worker, a bar for each attempt."""
    if not shown.bars:
        return blank("No worker has begun a trial yet.")
    first, last = min(b.start for b in shown.bars), max(b.end for b in shown.bars)
    _, divisor, unit = next(u for u in _UNITS if last - first >= u[0])
    rows = {name: place for place, name in enumerate(shown.workers)}
    figure = go.Figure()
    for outcome, (colour, pattern) in _LOOKS.items():
        if bars := [b for b in shown.bars if b.outcome is outcome]:
            figure.add_bar(
                orientation="h",
                name=str(outcome),
                y=[rows[b.worker] for b in bars],
                base=[b.start / divisor for b in bars],
                x=[(b.end - b.start) / divisor for b in bars],
                width=0.7,
                marker={"color": colour, "pattern": {"shape": pattern, "size": 5}, "line": {"width": 0}},
                hovertext=[_hover(b) for b in bars],
                hoverinfo="text",
                customdata=[b.trial for b in bars],
            )
    figure.update_layout(
        barmode="overlay",
        xaxis={"title": {"text": f"{unit} since the first start"}},
        yaxis={
            "tickvals": list(rows.values()),
            "ticktext": [escaped(shortened(name, 18)) for name in rows],
            "range": [len(rows) - 0.5, -0.5],
            "automargin": True,
        },
        bargap=0.2,
    )
    return styled(figure, 120 + 26 * max(3, len(rows)), revision)


def _hover(bar: Bar) -> str:
    again = f", attempt {bar.attempt}" if bar.attempt > 1 else ""
    took = duration_text(bar.end - bar.start)
    return (
        f"{escaped(shortened(bar.worker, 40))}<br>trial {bar.trial}{again}: {bar.outcome}<br>"
        f"{took}, from {duration_text(bar.start)} on"
    )


def shortened(text: str, most: int) -> str:
    """Return text of at most so many characters; where there were more, its middle is left out."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
