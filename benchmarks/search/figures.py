"""Figures of races as SVG: the same bytes from the same runs.

Colours are those of Okabe and Ito (2008), which people with any kind of colour blindness can tell apart; one
colour is one kind of search, and a broken line its variant.
"""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search import table
from benchmarks.search.ablation import WHOLE
from benchmarks.search.effects import Effect
from benchmarks.search.race import Run

Array = NDArray[np.float64]
Searchers = Mapping[str, Sequence[Run]]

OURS = "#000000"
STYLES: Mapping[str, tuple[str, str]] = {
    WHOLE: (OURS, "-"),
    f"{WHOLE}, stopping": (OURS, "--"),
    "random": ("#999999", "-"),
    "optuna/nsga2": ("#E69F00", "-"),
    "optuna/nsga2_small": ("#E69F00", "--"),
    "optuna/tpe": ("#56B4E9", "-"),
    "optuna/tpe_grouped": ("#56B4E9", "--"),
    "optuna/gp": ("#009E73", "-"),
    "smac": ("#0072B2", "-"),
    "botorch/qlognehvi": ("#D55E00", "-"),
    "botorch/qlognehvi_pool": ("#D55E00", "--"),
    "ax": ("#CC79A7", "-"),
}
"""Searcher -> colour and line."""
_OTHER = ("#999999", ":")
_LABEL = 34
"""Letters in a line of a label."""
_DECIMALS = re.compile(r"(\d\.\d\d)\d+")
"""Numbers with more than two decimals. A hundredth of a point is nothing to see, and files are smaller."""
_TAG = re.compile(r"<[^>]*>")
_POINTS = 100
"""Times at which a curve over seconds is drawn."""
_SETTINGS = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and weighs nothing
    "svg.hashsalt": "races",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


def over_trials(path: Path, problem: str, searchers: Searchers) -> None:
    """Draw the median and the quartiles of the hypervolume after each trial.

    Raises:
        ImportError: matplotlib is not installed.
    """
    curves = {}
    for name, runs in searchers.items():
        trials = min(run.key.trials for run in runs)
        curves[name] = (np.arange(trials + 1.0), table.curves(runs, trials))
    _draw(path, f"{problem}: hypervolume over trials", "trials, anchors not counted", curves, searchers)


def over_seconds(path: Path, problem: str, searchers: Searchers) -> None:
    """Draw the same over simulated seconds, until the shortest run of each searcher ends.

    Raises:
        ImportError: matplotlib is not installed.
    """
    curves = {}
    for name, runs in searchers.items():
        times = np.linspace(0.0, min(run.seconds[-1] if run.seconds else 0.0 for run in runs), _POINTS)
        curves[name] = (times, np.array([table.at_seconds(run, times) for run in runs]))
    _draw(path, f"{problem}: hypervolume over seconds", "seconds of a worker", curves, searchers)


def ablation(path: Path, effects: Sequence[Effect]) -> None:
    """Draw what each seed gains or loses over all trials by what is different, and the means.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with _figure(path, (8.0, 1.1 + 0.42 * len(effects))) as axes:
        axes.axvline(0.0, color=OURS, linewidth=1.5)
        for place, effect in enumerate(reversed(effects)):
            along = effect.along
            axes.plot(along, [place] * len(along), "o", color="#56B4E9", markersize=5, clip_on=False)
            axes.plot([along.mean()], [place], "D", color="#D55E00", markersize=8, clip_on=False)
        labels = [textwrap.fill(effect.label, _LABEL) for effect in reversed(effects)]
        axes.set_yticks(range(len(effects)), labels)
        axes.set_ylim(-0.6, len(effects) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_title("mean hypervolume over all trials, less the whole search's", loc="right", fontsize=11)
        axes.set_xlabel("dots: seeds; diamonds: means")


def _draw(
    path: Path, title: str, along: str, curves: Mapping[str, tuple[Array, Array]], searchers: Searchers
) -> None:
    with _figure(path, (8.0, 4.6)) as axes:
        ends = []
        for name, (places, found) in curves.items():
            low, middle, high = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
            is_ours = name.startswith(WHOLE)
            colour, line = STYLES.get(name, _OTHER)
            label = f"{name} ({len(searchers[name])})"
            order = 4 if is_ours else 2
            axes.fill_between(
                places, low, high, color=colour, alpha=0.2 if is_ours else 0.08, linewidth=0, zorder=order
            )
            (drawn,) = axes.plot(
                places,
                middle,
                line,
                color=colour,
                linewidth=2.6 if is_ours else 1.3,
                label=label,
                zorder=order,
            )
            ends.append((float(middle[-1]), drawn))
        ends.sort(key=lambda end: -end[0])
        handles = [drawn for _, drawn in ends]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel(along)
        axes.set_ylabel("share of the best known hypervolume")
        axes.margins(x=0.01)


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Any]:
    """Yield axes to draw in, and write the file afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure.add_subplot()
        path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        # Coordinates stand within tags, what is read between them.
        short = _TAG.sub(lambda tag: _DECIMALS.sub(r"\1", tag[0]), text.getvalue())
        path.write_text(short, encoding="utf-8")
