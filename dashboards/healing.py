"""How a trial's healing went: its curve -> numbers -> figure."""

from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards import palette
from dashboards.figures import blank, styled
from hpo.format import count_text, escaped, number_text, words
from hpo.healing_curve import HealingCurve, Point
from hpo.trial import Trial

_TEXT = "cross_entropy"
"""The training loss that is of the same kind as the loss on the text held out."""
_HEIGHT, _TWO_HEIGHT = 340, 480
_CHECKED = "on text held out"
NONE = "The losses of this healing were not kept: it was run by a version that did not keep them."


@dataclass(frozen=True)
class HealingView:
    """What is drawn of a healing. Losses in nats per token, unless `loss` is another."""

    loss: str
    """What training lowered."""
    trained: tuple[Point, ...]
    checked: tuple[Point, ...]
    sentence: str
    """The same in words."""

    @property
    def is_one_scale(self) -> bool:
        """Whether both losses are nats per token of a text, and so belong on one axis."""
        return self.loss == _TEXT


def healing_view(trial: Trial, curve: HealingCurve | None) -> HealingView | None:
    """Return what there is to see of a trial's healing; None where it has none, or nothing of it was kept."""
    if curve is None or not (curve.trained or curve.checked):
        return None
    return HealingView(curve.loss, curve.trained, curve.checked, " ".join(_sentences(trial, curve)))


def has_healed(trial: Trial) -> bool:
    """Whether a trial has been in a healing, however far it came."""
    return any(stage.stage.startswith("heal") for stage in trial.stages)


def _sentences(trial: Trial, curve: HealingCurve) -> list[str]:
    said = []
    if len(curve.checked) > 1:
        (_, before), (step, after) = curve.checked[0], curve.checked[-1]
        change = "fell" if after < before else "rose"
        said.append(
            f"The loss on text held out from the healing {change} from {number_text(before)} to "
            f"{number_text(after)} nats per token in {count_text(step, 'step')}."
        )
    if trial.notes.get("heal_kept") == 0.0:
        said.append("That was no gain, so the trial was measured as it had been before.")
    if "heal_shared_run" in trial.notes:
        said.append("The healing was done once for several trials; this is its curve.")
    return said


def draw_healing(view: HealingView | None) -> go.Figure:
    """Return the figure of a healing: one panel, or two where the losses are of different kinds."""
    if view is None:
        return blank(NONE)
    if view.is_one_scale:
        figure = go.Figure()
        _add_trained(figure, view)
        _add_checked(figure, view)
        figure.update_yaxes(title={"text": "nats per token<br>↓ lower is better"})
        figure.update_xaxes(title={"text": "steps"}, rangemode="tozero")
        return styled(figure, _HEIGHT, "healing")
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    _add_checked(figure, view, row=1, col=1)
    _add_trained(figure, view, row=2, col=1)
    figure.update_yaxes(title={"text": "nats per token<br>↓ lower is better"}, row=1, col=1)
    figure.update_yaxes(title={"text": f"{escaped(words(view.loss))}<br>↓ lower is better"}, row=2, col=1)
    figure.update_xaxes(rangemode="tozero")
    figure.update_xaxes(title={"text": "steps"}, row=2, col=1)
    return styled(figure, _TWO_HEIGHT, "healing")


def _add_trained(figure: go.Figure, view: HealingView, **place: int) -> None:
    figure.add_scatter(
        x=[step for step, _ in view.trained],
        y=[loss for _, loss in view.trained],
        mode="lines",
        line={"color": palette.GREY, "width": 1.5},
        hovertemplate="step %{x}: %{y:.4g}<extra></extra>",
        name=f"while training: {escaped(words(view.loss))}",
        showlegend=True,
        **place,
    )


def _add_checked(figure: go.Figure, view: HealingView, **place: int) -> None:
    figure.add_scatter(
        x=[step for step, _ in view.checked],
        y=[loss for _, loss in view.checked],
        mode="lines+markers",
        line={"color": palette.BLUE, "width": 2},
        marker={"symbol": "diamond", "size": 10},
        hovertemplate="step %{x}: %{y:.4g} nats per token<extra></extra>",
        name=_CHECKED,
        showlegend=True,
        **place,
    )
