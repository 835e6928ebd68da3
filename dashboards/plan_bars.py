"""What a plan keeps of each layer: layer records -> numbers -> figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dashboards import palette
from dashboards.figures import blank, styled
from hpo.format import escaped, percent_text, value_text
from hpo.trial import LayerRecord

_COLOURS = {"dense": palette.GREY, "low_rank": palette.BLUE, "mpo": palette.GREEN}
_ROW = 22
"""Pixels a layer takes; below 14 its name would be left out."""
_CROWDED_ROW = 14
_CROWD = 60


@dataclass(frozen=True)
class LayerBar:
    """One layer: what became of it and which share of its dense parameters is kept."""

    layer: str
    kind: str
    size: str
    parameters: int
    bytes: int
    share: float
    """May exceed 1: a tensor network can hold more than the matrix it replaces."""


@dataclass(frozen=True)
class PlanBars:
    """The layers of a plan in the model's order, and the share kept over all of them."""

    bars: tuple[LayerBar, ...]
    share: float

    @property
    def height(self) -> int:
        """Pixels the figure takes."""
        return 110 + len(self.bars) * (_CROWDED_ROW if len(self.bars) > _CROWD else _ROW)


def plan_bars(layers: Sequence[LayerRecord]) -> PlanBars:
    """Return the bars of a plan. A layer without dense parameters counts as kept."""
    bars = tuple(
        LayerBar(r.layer, r.kind, r.size, r.parameters, r.bytes, _share(r.parameters, r.dense_parameters))
        for r in layers
    )
    return PlanBars(bars, _share(sum(r.parameters for r in layers), sum(r.dense_parameters for r in layers)))


def _share(kept: int, dense: int) -> float:
    return kept / dense if dense else 1.0


def draw_plan(plan: PlanBars) -> go.Figure:
    """Return a figure with a horizontal bar per layer, coloured by kind."""
    if not plan.bars:
        return blank("This trial has no plan: it is the dense model, or it failed before one was made.")
    figure = go.Figure()
    for kind in dict.fromkeys(bar.kind for bar in plan.bars):
        group = [bar for bar in plan.bars if bar.kind == kind]
        figure.add_bar(
            x=[100 * bar.share for bar in group],
            y=[escaped(bar.layer) for bar in group],
            orientation="h",
            marker={"color": _COLOURS.get(kind, palette.PURPLE)},
            hovertext=[_hover(bar) for bar in group],
            hoverinfo="text",
            name=escaped(kind.replace("_", " ")),
        )
    figure.update_layout(
        xaxis={"title": {"text": "kept [%]"}, "rangemode": "tozero"},
        yaxis={
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": [escaped(bar.layer) for bar in plan.bars],
            "automargin": True,
            "dtick": 1,
        },
        bargap=0.25,
        showlegend=True,
    )
    return styled(figure, plan.height, "plan")


def _hover(bar: LayerBar) -> str:
    lines = [
        f"<b>{escaped(bar.layer)}</b>",
        f"{escaped(bar.kind.replace('_', ' '))}{', ' if bar.size else ''}{escaped(bar.size)}",
        f"{percent_text(bar.share)} of the dense parameters",
        f"{value_text(bar.parameters, 'parameters')}, {value_text(bar.bytes, 'bytes')}",
    ]
    return "<br>".join(lines)
