"""What all figures share: their look, their configuration, and the one that says why there is none.

A figure module first turns trials into numbers (a frozen value, which is what tests look at), then
the numbers into a Plotly figure. Nothing here draws in WebGL, so that the style sheet can recolour
text and grid lines when the page turns dark.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import plotly.graph_objects as go

from hpo.format import escaped

GRAPH_CONFIG: Mapping[str, Any] = MappingProxyType(
    {
        # plotly.js 4 offers by default to send the figure's data to a server of its maker.
        "showSendToCloud": False,
        "displaylogo": False,
        "responsive": True,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    }
)
"""Passed with every figure that is shown or written."""

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'
_CLEAR = "rgba(0,0,0,0)"
_DARK = "#20252c"
_AXIS = {
    "gridcolor": "#d9dce1",
    "zeroline": False,
    "showline": True,
    "linecolor": "#8b929a",
    "ticks": "outside",
}


def styled(figure: go.Figure, height: int, revision: str) -> go.Figure:
    """Return `figure` in the common look. While `revision` stays the same, so does the user's zoom."""
    figure.update_layout(
        template="none",
        height=height,
        uirevision=revision,
        font={"family": _FONT, "size": 13},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        margin={"l": 72, "r": 16, "t": 16, "b": 64},
        hoverlabel={"bgcolor": _DARK, "bordercolor": _DARK, "align": "left", "font": {"color": "#fff"}},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": _CLEAR},
        modebar={"bgcolor": _CLEAR},
    )
    figure.update_xaxes(_AXIS)
    figure.update_yaxes(_AXIS)
    return figure


def blank(message: str, height: int = 220) -> go.Figure:
    """Return a figure that only says why there is nothing to draw; `message` is shown as plain text."""
    figure = styled(go.Figure(), height, "blank")
    figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    figure.add_annotation(text=escaped(message), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return figure
