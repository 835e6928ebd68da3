"""Which parameters matter for which objective: trials -> numbers (by `ped_anova`) -> figure."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from dashboards.figures import blank, styled
from dashboards.ped_anova import divergences
from hpo.format import count_text, escaped, percent_text, words
from hpo.pareto import Array
from hpo.problem import losses
from hpo.space import SearchSpace
from hpo.trial import Objective, Trial, TrialState

FEWEST = 10
"""Completed trials of the space below which nothing is said."""

MOST = 1000
"""Completed trials that are looked at, evenly taken from all."""

WHY_NONE = (
    f"What matters can be said once {FEWEST} trials of the search space are completed, "
    "and if it leaves more than one value to choose."
)

_BEST = 0.1
_FEWEST_BEST = 5
_MOST_ROWS = 40
_WIDEST_NAME = 28
_ROW, _FRAME = 30, 80
_COLUMN, _MARGIN = 96, 240
_COLOURS = ((0.0, "rgba(0,114,178,0)"), (1.0, "rgba(0,114,178,0.62)"))


@dataclass(frozen=True)
class Importances:
    """The share that each parameter has in what makes a trial good, for each objective.

    Raises:
        ValueError: the shapes differ.
    """

    parameters: tuple[str, ...]
    """The most important one over all objectives first."""
    objectives: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]
    """A row for each parameter, a column for each objective that sums to 1; NaN where nothing can be told."""
    having: tuple[int, ...]
    """How many of the trials looked at have the parameter."""
    looked_at: int
    completed: int
    """All that are completed, those outside the space included."""
    best: float
    """Share of the trials looked at that count as good."""

    def __post_init__(self) -> None:
        rows, columns = len(self.parameters), len(self.objectives)
        if not (rows == len(self.shares) == len(self.having) and all(len(r) == columns for r in self.shares)):
            raise ValueError(f"{len(self.shares)} rows of shares for {rows} parameters in {columns} metrics")

    @property
    def words(self) -> str:
        """What matters most for each objective, as a sentence."""
        said = []
        for metric, column in zip(self.objectives, zip(*self.shares, strict=True), strict=True):
            if any(map(math.isnan, column)):
                said.append(f"{words(metric)}: nothing can be told, the trials hardly differ in it")
            else:
                top = int(np.argmax(column))
                said.append(f"{words(metric)}: {self.parameters[top]} ({percent_text(column[top])})")
        return f"What matters most, for {'; for '.join(said)}."

    @property
    def caption(self) -> str:
        """What was looked at and how, in words."""
        looked = f"{self.looked_at:,} of {count_text(self.completed, 'completed trial')}"
        if self.looked_at == self.completed:
            looked = count_text(self.completed, "completed trial")
        elif self.completed > MOST:
            looked += ", taken evenly"
        else:
            looked += " (the others lie outside the search space)"
        return (
            "How far the values of a parameter among the best trials differ from those among all, as a "
            f"share of all parameters' (PED-ANOVA). Looked at: {looked}; the best {percent_text(self.best)} "
            "of them in an objective count as good for it. A parameter that not all trials have is judged "
            "among those that have it, and counts for as much as these do among the good ones."
        )


def worth_again(completed: int, before: int) -> bool:
    """Return whether so many completed trials, a tenth more than the `before` when it was last computed or
    fewer, are worth computing it again."""
    return completed < before or (completed > before and 10 * completed >= 11 * before)


def importances(
    space: SearchSpace, objectives: Sequence[Objective], trials: Sequence[Trial]
) -> Importances | None:
    """Return the importances; None where too few trials of the space are completed, or none of its
    parameters varies."""
    completed = [t for t in trials if t.state is TrialState.COMPLETED]
    # Anchors outside the space, and what a refinement moved out of it, have other parameters.
    judged = [t for t in _thinned(completed) if space.contains(t.candidate)]
    having = Counter(name for t in judged for name, _ in t.candidate.items)
    names = [name for name, p in space.parameters.items() if p.count != 1 and having[name]]
    if len(judged) < FEWEST or not names:
        return None
    best = max(_BEST, _FEWEST_BEST / len(judged))
    found_PM = divergences(space, names, judged, losses(objectives, judged), best)
    shares_PM = _of_the_sum(found_PM)
    order = np.argsort(-np.nansum(shares_PM, axis=1), kind="stable")
    return Importances(
        parameters=tuple(names[i] for i in order),
        objectives=tuple(o.metric for o in objectives),
        shares=tuple(tuple(map(float, shares_PM[i])) for i in order),
        having=tuple(having[names[i]] for i in order),
        looked_at=len(judged),
        completed=len(completed),
        best=best,
    )


def _thinned(trials: Sequence[Trial]) -> list[Trial]:
    if len(trials) <= MOST:
        return list(trials)
    return [trials[i] for i in np.linspace(0, len(trials) - 1, MOST).astype(int)]


def _of_the_sum(found_PM: Array) -> Array:
    total_M = found_PM.sum(axis=0)
    shares: Array = found_PM / np.where(total_M > 0, total_M, np.nan)
    return shares


def draw_importances(found: Importances | None) -> go.Figure:
    """Return a heat map with a row for each parameter and a column for each objective; one that says why if
    there is nothing to draw."""
    if found is None:
        return blank(WHY_NONE)
    rows = range(min(len(found.parameters), _MOST_ROWS))
    names = [_label(found, i) for i in rows]
    shares = [[None if math.isnan(share) else 100 * share for share in found.shares[i]] for i in rows]
    figure = go.Figure()
    figure.add_heatmap(
        x=[words(metric).replace(" ", "<br>") for metric in found.objectives],
        y=names,
        z=shares,
        zmin=0,
        zmax=100,
        colorscale=_COLOURS,
        showscale=False,
        text=[["–" if share is None else f"{share:.0f} %" for share in row] for row in shares],
        texttemplate="%{text}",
        hovertext=[[_hover(found, i, column) for column in range(len(found.objectives))] for i in rows],
        hoverinfo="text",
        xgap=2,
        ygap=2,
    )
    figure.update_layout(
        yaxis={"autorange": "reversed", "type": "category", "dtick": 1, "automargin": True},
        xaxis={"type": "category", "side": "top", "dtick": 1, "tickangle": 0, "automargin": True},
    )
    drawn = styled(figure, _FRAME + _ROW * len(names), "importance")
    drawn.update_layout(margin={"t": 64, "b": 8})
    drawn.update_xaxes(showline=False, ticks="", showgrid=False)
    drawn.update_yaxes(showline=False, ticks="", showgrid=False)
    return drawn


def narrowest(found: Importances | None) -> int:
    """Return the pixels below which the figure cannot be read."""
    return 0 if found is None else _MARGIN + _COLUMN * len(found.objectives)


def _label(found: Importances, i: int) -> str:
    """Return a parameter's name, cut in its middle if it is long: its ends tell it from its neighbours."""
    name = found.parameters[i]
    if len(name) > _WIDEST_NAME:
        name = f"{name[: _WIDEST_NAME // 2]}…{name[1 - _WIDEST_NAME // 2 :]}"
    # Blanks that do not show keep two names apart that are cut to the same.
    return escaped(name) + "\u200b" * i


def _hover(found: Importances, i: int, column: int) -> str:
    share = found.shares[i][column]
    name = found.parameters[i]
    lines = [escaped(name[k : k + 60]) for k in range(0, len(name), 60)]
    said = "nothing can be told" if math.isnan(share) else percent_text(share)
    lines.append(f"{said} for {words(found.objectives[column])}")
    if found.having[i] < found.looked_at:
        lines.append(f"among {found.having[i]:,} of {found.looked_at:,} trials that have it")
    return "<br>".join(lines)
