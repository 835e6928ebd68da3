"""What a part of our search brings: the search without it beside the whole one, seed by seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.search import table
from benchmarks.search.race import Run

Array = NDArray[np.float64]

MARKS = (25,)
"""Trials after which they are compared, beside their last one."""


@dataclass(frozen=True)
class Effect:
    """Some runs beside those of the whole search on the same seeds.

    Raises:
        ValueError: there are no runs, or the seeds or lengths differ.
    """

    label: str
    """What is different from the whole search."""
    runs: tuple[Run, ...]
    whole: tuple[Run, ...]

    def __post_init__(self) -> None:
        mine, other = ([(r.key.seed, r.key.trials) for r in runs] for runs in (self.runs, self.whole))
        if not mine or mine != other:
            raise ValueError(f"{self.label}: seeds and trials {mine} beside {other}; they must be the same")

    @property
    def trials(self) -> int:
        return self.runs[0].key.trials

    def differences(self, mark: int) -> Array:
        """Return the hypervolume after so many trials less the whole search's, seed by seed, (seeds,)."""
        mine, other = (table.curves(runs, mark)[:, -1] for runs in (self.runs, self.whole))
        found: Array = mine - other
        return found

    @property
    def along(self) -> Array:
        """The same of the mean hypervolume over all trials, (seeds,).

        It tells more than the end, where all good searches come to the same."""
        mine, other = (
            table.curves(runs, self.trials)[:, 1:].mean(axis=1) for runs in (self.runs, self.whole)
        )
        found: Array = mine - other
        return found

    @property
    def row(self) -> list[str]:
        medians = (table.spread_at(self.runs, mark) for mark in marks(self.trials))
        return [
            self.label,
            str(len(self.runs)),
            *(str(found) for found in medians),
            *(f"{self.differences(mark).mean():+.4f}" for mark in marks(self.trials)),
            _with_error(self.along),
        ]


def marks(trials: int) -> tuple[int, ...]:
    """Return the trials after which searches of some length are compared, their end among them."""
    return (*(mark for mark in MARKS if mark < trials), trials)


def paired(label: str, runs: Sequence[Run], whole: Sequence[Run], trials: int) -> Effect | None:
    """Return the effect over the first `trials` of the seeds that both have; None if there is none."""
    mine, other = (
        {run.key.seed: cut(run, trials) for run in some if run.key.trials >= trials} for some in (runs, whole)
    )
    seeds = sorted(mine.keys() & other.keys())
    if not seeds:
        return None
    return Effect(label, tuple(mine[seed] for seed in seeds), tuple(other[seed] for seed in seeds))


def cut(run: Run, trials: int) -> Run:
    """Return the beginning of a run: a search does not know how long it will be. What was counted over the
    whole run is left out."""
    return replace(
        run,
        key=replace(run.key, trials=trials),
        hypervolumes=run.hypervolumes[:trials],
        seconds=run.seconds[:trials],
        ask_seconds=run.ask_seconds[:trials],
        refused=0,
        repeated=0,
        stopped=0,
        lost=0,
        front=0,
    )


def markdown(effects: Sequence[Effect]) -> str:
    """Return a row for each, the whole search's first; all are of as many trials."""
    looked = marks(effects[0].trials)
    head = ["what is different", "seeds", *(f"after {mark} trials" for mark in looked)]
    head += [*(f"difference after {mark}" for mark in looked), "difference over all trials"]
    widest = max(effects, key=lambda effect: len(effect.whole)).whole
    medians = (str(table.spread_at(widest, mark)) for mark in looked)
    whole = ["nothing: the whole search", str(len(widest)), *medians, *[""] * (len(looked) + 1)]
    return table.grid(head, [whole, *(effect.row for effect in effects)])


def _with_error(values: Array) -> str:
    """Return a mean with its standard error."""
    if len(values) < 2:
        return f"{values.mean():+.4f}"
    return f"{values.mean():+.4f} ± {values.std(ddof=1) / len(values) ** 0.5:.4f}"
