"""What a worker did for a trial, stage by stage: stage times -> numbers -> a bar cut into parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboards import palette
from dashboards.figures import styled
from hpo.format import duration_text, escaped, number_text, percent_text, words
from hpo.trial import StageTime

HEAD = ("stage", "worker time", "share", "energy counted")
_COLOURS = (palette.BLUE, palette.GREEN, palette.PURPLE, palette.VERMILLION, palette.GREY)
_PATTERNS = ("", "/", "x", ".", "|")
_HEIGHT = 165


@dataclass(frozen=True)
class StageBar:
    """One stage."""

    stage: str
    seconds: float
    share: float
    """Of all stages so far."""
    joules: float | None


def stage_bars(stages: Sequence[StageTime]) -> tuple[StageBar, ...]:
    """Return the stages in their order. Where none took any time, each has an equal share."""
    total = sum(stage.seconds for stage in stages)
    return tuple(
        StageBar(s.stage, s.seconds, s.seconds / total if total else 1 / len(stages), s.joules)
        for s in stages
    )


def stage_rows(bars: Sequence[StageBar]) -> list[tuple[str, str, str, str]]:
    """Return the same in words, and all stages together."""
    rows = [
        (words(b.stage), duration_text(b.seconds), percent_text(b.share), _energy(b.joules)) for b in bars
    ]
    counted = [b.joules for b in bars if b.joules is not None]
    whole = sum(counted) if counted and len(counted) == len(bars) else None
    said = _energy(whole)
    if counted and whole is None:
        said = f"not counted in {len(bars) - len(counted)} of {len(bars)} stages"
    return [*rows, ("all", duration_text(sum(b.seconds for b in bars)), "", said)]


def _energy(joules: float | None) -> str:
    return "–" if joules is None else f"{number_text(joules)} J"


def draw_stages(bars: Sequence[StageBar]) -> go.Figure:
    """Return one horizontal bar, a part a stage."""
    figure = go.Figure()
    for i, bar in enumerate(bars):
        figure.add_bar(
            x=[bar.seconds],
            y=[""],
            orientation="h",
            marker={
                "color": _COLOURS[i % len(_COLOURS)],
                "pattern": {"shape": _PATTERNS[i % len(_PATTERNS)], "solidity": 0.25},
            },
            hovertext=[
                f"{escaped(words(bar.stage))}: {duration_text(bar.seconds)}, {percent_text(bar.share)}"
            ],
            hoverinfo="text",
            name=escaped(words(bar.stage)),
        )
    figure.update_layout(barmode="stack", xaxis={"title": {"text": "worker time [s]"}}, showlegend=True)
    figure = styled(figure, _HEIGHT, "stages")
    figure.update_layout(margin={"l": 16, "r": 16, "t": 8, "b": 60}, legend={"traceorder": "normal"})
    figure.update_yaxes(visible=False)
    return figure
