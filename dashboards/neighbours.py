"""The trials nearest to one in the space it was drawn from.

The distance is that of Gower (1971, "A General Coefficient of Similarity"): the mean over parameters of how
far apart two candidates are in each, a number by its place in the unit cube and a choice by being another
one. A parameter that neither has counts nothing; one that only one of them has counts as another choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo.format import number_text
from hpo.pareto import Array
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Trial, TrialState

_SHOWN = 3
"""Differences that are named."""
_LONGEST = 24
"""Characters of a value that are shown: some have a number for every layer."""


@dataclass(frozen=True)
class Neighbour:
    """A completed trial near another one."""

    trial: Trial
    distance: float
    """From 0, the same in everything, to 1, alike in nothing."""
    differs: str
    """The parameters that differ most, in words."""


def neighbours(space: SearchSpace, trial: Trial, trials: Sequence[Trial], count: int = 5) -> list[Neighbour]:
    """Return the completed trials nearest to a trial, nearest first and of equally near ones the earliest.

    The dense model, to which nothing is done, is near to none.
    """
    others = [
        t for t in trials if t.number != trial.number and t.state is TrialState.COMPLETED and not t.is_dense
    ]
    if trial.is_dense or not others:
        return []
    apart_PN, names = _apart(space, trial.candidate, [t.candidate for t in others])
    known_PN = ~np.isnan(apart_PN)
    distances = np.where(known_PN, apart_PN, 0.0).sum(axis=0) / np.maximum(known_PN.sum(axis=0), 1)
    nearest = np.argsort(distances, kind="stable")[:count]
    return [
        Neighbour(others[i], float(distances[i]), _words(names, apart_PN[:, i], trial, others[i]))
        for i in nearest
    ]


def _apart(space: SearchSpace, here: Candidate, others: Sequence[Candidate]) -> tuple[Array, list[str]]:
    """Return how far N candidates are from one in each of P parameters, NaN where neither has it, (P, N)."""
    names = sorted({name for candidate in (here, *others) for name in candidate.values})
    rows = [
        _row(_parameter(space, name), here.values.get(name), [o.values.get(name) for o in others])
        for name in names
    ]
    return np.array(rows).reshape(len(names), len(others)), names


def _parameter(space: SearchSpace, name: str) -> Float | Int | Choice | None:
    """Return the parameter of a name, or of its block's; None where the space has none."""
    found = space.parameters.get(name)
    template, _, block = name.rpartition(".")
    return found if found is not None or not block.isdecimal() else space.parameters.get(template)


def _row(parameter: Float | Int | Choice | None, mine: Value | None, theirs: Sequence[Value | None]) -> Array:
    if mine is None:
        return np.array([np.nan if value is None else 1.0 for value in theirs])
    same = np.array([0.0 if value == mine else 1.0 for value in theirs])
    if not isinstance(parameter, Float | Int) or not _is_number(mine):
        return same
    place = _place(parameter, mine)
    return np.array(
        [
            apart if not _is_number(value) else abs(_place(parameter, value) - place)
            for value, apart in zip(theirs, same, strict=True)
        ]
    )


def _is_number(value: Value | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _place(parameter: Float | Int, value: Value | None) -> float:
    """Return where a number lies in its range, from 0 to 1; one outside, as an anchor has, at an end."""
    if value is None:
        raise ValueError("a parameter without a value has no place")
    inside = min(max(float(value), float(parameter.low)), float(parameter.high))
    return parameter.to_unit(inside)


def _words(names: Sequence[str], apart_P: Array, trial: Trial, other: Trial) -> str:
    order = [i for i in np.argsort(-np.nan_to_num(apart_P), kind="stable") if apart_P[i] > 0]
    said = [f"{names[i]}: {_text(trial, names[i])} → {_text(other, names[i])}" for i in order[:_SHOWN]]
    more = len(order) - len(said)
    return ", ".join([*said, *([f"{more} more"] if more else [])]) or "nothing"


def _text(trial: Trial, name: str) -> str:
    value = trial.candidate.values.get(name)
    if value is None:
        return "–"
    said = number_text(value, 3) if isinstance(value, float) else str(value)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"
