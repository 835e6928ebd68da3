"""What a comparison found, as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.race import Run

Array = NDArray[np.float64]

MARKS = (25, 40, 50, 100)
"""Trials after which searchers are compared."""
LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Shares of the best known hypervolume that they may reach."""


@dataclass(frozen=True)
class Spread:
    """Quartiles of the hypervolume over seeds."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Reached:
    """Where the median over seeds first is at a level: by trials, and by simulated seconds."""

    trials: int | None
    seconds: float | None

    def __str__(self) -> str:
        if self.trials is None or self.seconds is None:
            return "-"
        return f"{self.trials} ({self.seconds:.4g} s)"


def spread_at(runs: Sequence[Run], trials: int) -> Spread | None:
    """Return the hypervolume's quartiles after so many trials; None if no run went for so many.

    A search that had nothing more to propose stays where it was.
    """
    long = [run for run in runs if run.key.trials >= trials]
    if not long:
        return None
    return Spread(*np.quantile(curves(long, trials)[:, -1], [0.25, 0.5, 0.75]).tolist())


def reached(runs: Sequence[Run], level: float) -> Reached:
    """Return where the median first is at least `level`; nothing where it never is.

    Both counts are of their own curve: after as many trials each, and after as many seconds each.
    Beyond the end of the shortest run nothing is looked at.
    """
    length = min(run.key.trials for run in runs)
    by_trial = np.median(curves(runs, length), axis=0)
    at_trial = np.flatnonzero(by_trial >= level)
    ends = [run.seconds[-1] if run.seconds else 0.0 for run in runs]
    times = np.unique([s for run in runs for s in (0.0, *run.seconds) if s <= min(ends)])
    by_second = np.median([at_seconds(run, times) for run in runs], axis=0)
    at_second = np.flatnonzero(by_second >= level)
    return Reached(
        int(at_trial[0]) if len(at_trial) else None, float(times[at_second[0]]) if len(at_second) else None
    )


def curves(runs: Sequence[Run], trials: int) -> Array:
    """Return hypervolumes after 0, 1, ... trials, (runs, trials + 1). What ended early stays where it was."""
    rows = []
    for run in runs:
        known = [run.anchors, *run.hypervolumes][: trials + 1]
        rows.append(known + [known[-1]] * (trials + 1 - len(known)))
    return np.array(rows)


def at_seconds(run: Run, times: Array) -> Array:
    """Return the hypervolume of what had ended after each of some times, (times,)."""
    done = np.searchsorted(np.array(run.seconds), times, side="right")
    found: Array = np.array([run.anchors, *run.hypervolumes])[done]
    return found


def grouped(runs: Sequence[Run]) -> Mapping[str, Mapping[str, list[Run]]]:
    """Return the runs by problem and by searcher, in the order of their first appearance."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        found.setdefault(run.key.problem, {}).setdefault(run.key.searcher, []).append(run)
    return found


def markdown(runs: Sequence[Run], levels: Sequence[float] = LEVELS) -> str:
    """Return two tables a problem: hypervolumes at the marks, and trials and seconds to each level."""
    return "\n\n".join(
        f"### {problem}\n\n{both(searchers, levels)}" for problem, searchers in grouped(runs).items()
    )


def both(searchers: Mapping[str, Sequence[Run]], levels: Sequence[float] = LEVELS) -> str:
    """Return the two tables of one problem, from the runs of each searcher."""
    return f"{_quality(searchers)}\n\n{_speed(searchers, levels)}"


def _quality(searchers: Mapping[str, Sequence[Run]]) -> str:
    longest = max(run.key.trials for runs in searchers.values() for run in runs)
    marks = sorted({mark for mark in MARKS if mark <= longest} | {longest})
    head = ["searcher", "seeds", *(f"after {mark} trials" for mark in marks)]
    head += ["refused", "repeated", "CPU seconds a trial"]
    rows = []
    for name, runs in searchers.items():
        asking = [seconds for run in runs for seconds in run.ask_seconds]
        found = [spread_at(runs, mark) for mark in marks]
        rows.append(
            [
                name,
                str(len(runs)),
                *("-" if spread is None else str(spread) for spread in found),
                f"{np.mean([run.refused for run in runs]):.3g}",
                f"{np.mean([run.repeated for run in runs]):.3g}",
                _cpu(float(np.mean(asking))) if asking else "-",
            ]
        )
    return grid(head, rows)


def _cpu(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds >= 0.001 else "under 0.001"


def _speed(searchers: Mapping[str, Sequence[Run]], levels: Sequence[float]) -> str:
    head = ["trials (seconds) to", *(f"{level:g}" for level in levels)]
    return grid(
        head, [[name, *(str(reached(runs, level)) for level in levels)] for name, runs in searchers.items()]
    )


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
