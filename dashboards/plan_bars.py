"""What a plan keeps of each layer: layer records -> numbers -> figure, and the same as rows of words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import plotly.graph_objects as go

from dashboards import palette
from dashboards.figures import blank, styled
from hpo.format import escaped, percent_text, value_text, words
from hpo.trial import LayerRecord

Of = Literal["weights", "bytes"]
OF: tuple[Of, ...] = get_args(Of)
"""What a bar can be a share of: a layer's weights, or the bytes that the dense model holds for it."""
HEAD = ("layer", "what it became", "weights kept", "bytes kept", "weights", "bytes")

_COLOURS: Mapping[str, str] = {
    "dense": palette.GREY,
    "low_rank": palette.BLUE,
    "basis": palette.BLUE,
    "mpo": palette.GREEN,
    "tt_": palette.GREEN,
    "packed": palette.VERMILLION,
    "corrected": palette.VERMILLION,
}
"""Part of a kind's name -> its colour, the first that fits; purple for what else there is."""
_PATTERNS = ("", "/", "x", ".", "|", "\\", "-", "+")
_WIDTHS: Mapping[str, float] = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_ROW = 22
"""Pixels a layer takes; below 14 its name would be left out."""
_CROWDED_ROW = 14
_CROWD = 60


@dataclass(frozen=True)
class LayerBar:
    """One layer: what became of it and which share of the dense one is kept."""

    layer: str
    kind: str
    size: str
    """Rank, bonds, bits or sparsity in words."""
    parameters: int
    bytes: int
    share: float
    """Of the dense weights. May exceed 1: a tensor network can hold more than the matrix it replaces."""
    byte_share: float | None
    """Of the dense bytes; None where those are not known."""

    @property
    def became(self) -> str:
        """Kind and size in words."""
        return ", ".join(part for part in (words(self.kind), self.size) if part)


@dataclass(frozen=True)
class PlanBars:
    """The layers of a plan in the model's order, and the shares kept over all of them."""

    bars: tuple[LayerBar, ...]
    share: float
    byte_share: float | None

    @property
    def height(self) -> int:
        """Pixels the figure takes."""
        return 110 + len(self.bars) * (_CROWDED_ROW if len(self.bars) > _CROWD else _ROW)

    @property
    def sentence(self) -> str:
        """Both shares in words."""
        held = "" if self.byte_share is None else f" and {percent_text(self.byte_share)} of their bytes"
        return f"{percent_text(self.share)} of the weights of these layers{held}, against the dense model."


def plan_bars(
    layers: Sequence[LayerRecord], dense: Sequence[LayerRecord] = (), dtype: str | None = None
) -> PlanBars:
    """Return the bars of a plan. A layer without dense parameters counts as kept.

    Args:
        dense: the plan of the dense model, which says how many bytes it holds for each layer. Without it,
            that follows from the layers that are dense here.
        dtype: of the dense model, if there is neither.
    """
    held = _dense_bytes(layers, dense, dtype)
    bars = tuple(
        LayerBar(
            r.layer,
            r.kind,
            r.size,
            r.parameters,
            r.bytes,
            _share(r.parameters, r.dense_parameters),
            None if of is None else _share(r.bytes, of),
        )
        for r, of in zip(layers, held, strict=True)
    )
    known = [of for of in held if of is not None]
    return PlanBars(
        bars,
        share=_share(sum(r.parameters for r in layers), sum(r.dense_parameters for r in layers)),
        byte_share=_share(sum(r.bytes for r in layers), sum(known)) if len(known) == len(held) else None,
    )


def _dense_bytes(
    layers: Sequence[LayerRecord], dense: Sequence[LayerRecord], dtype: str | None
) -> list[float | None]:
    """Return the bytes that the dense model holds for each layer, None where that cannot be told."""
    told = {(r.layer, r.dense_parameters): float(r.bytes) for r in dense}
    as_it_is = [r for r in (*dense, *layers) if r.kind == "dense" and r.parameters]
    width = as_it_is[0].bytes / as_it_is[0].parameters if as_it_is else _WIDTHS.get(dtype or "")
    return [
        told.get((r.layer, r.dense_parameters), None if width is None else width * r.dense_parameters)
        for r in layers
    ]


def _share(kept: float, dense: float) -> float:
    return kept / dense if dense else 1.0


def plan_rows(plan: PlanBars) -> list[tuple[str, ...]]:
    """Return a row of words for each layer, in the order of `HEAD`."""
    return [
        (
            bar.layer,
            bar.became,
            percent_text(bar.share),
            "–" if bar.byte_share is None else percent_text(bar.byte_share),
            f"{bar.parameters:,}",
            value_text(bar.bytes, "bytes"),
        )
        for bar in plan.bars
    ]


def draw_plan(plan: PlanBars, of: Of = "weights") -> go.Figure:
    """Return a figure with a horizontal bar per layer, coloured and hatched by kind."""
    if not plan.bars:
        return blank("This trial has no plan: it is the dense model, or it failed before one was made.")
    if of == "bytes" and all(bar.byte_share is None for bar in plan.bars):
        return blank("How many bytes the dense model holds for these layers is not known.")
    figure = go.Figure()
    for i, kind in enumerate(dict.fromkeys(bar.kind for bar in plan.bars)):
        group = [bar for bar in plan.bars if bar.kind == kind]
        figure.add_bar(
            x=[_percent(bar.share if of == "weights" else bar.byte_share) for bar in group],
            y=[escaped(bar.layer) for bar in group],
            orientation="h",
            marker={
                "color": _colour(kind),
                "pattern": {"shape": _PATTERNS[i % len(_PATTERNS)], "solidity": 0.2, "size": 6},
            },
            hovertext=[_hover(bar) for bar in group],
            hoverinfo="text",
            name=escaped(words(kind)),
        )
    figure.add_vline(x=100, line={"color": palette.GREY, "width": 1, "dash": "dash"})
    figure.update_layout(
        xaxis={"title": {"text": f"{of} kept [%]"}, "rangemode": "tozero"},
        yaxis={
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": [escaped(bar.layer) for bar in plan.bars],
            "automargin": True,
            "dtick": 1,
        },
        bargap=0.25,
        barmode="overlay",
        showlegend=True,
    )
    return styled(figure, plan.height, f"plan {of}")


def _colour(kind: str) -> str:
    return next((colour for part, colour in _COLOURS.items() if part in kind), palette.PURPLE)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _hover(bar: LayerBar) -> str:
    held = "" if bar.byte_share is None else f", {percent_text(bar.byte_share)} of its bytes"
    lines = [
        f"<b>{escaped(bar.layer)}</b>",
        escaped(bar.became),
        f"{percent_text(bar.share)} of the dense parameters{held}",
        f"{value_text(bar.parameters, 'parameters')}, {value_text(bar.bytes, 'bytes')}",
    ]
    return "<br>".join(lines)
