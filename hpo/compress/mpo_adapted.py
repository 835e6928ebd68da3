"""From one keep ratio to a share for every layer, where a weight helps the model most. Needs no torch.

Every layer has a curve: the divergence from the dense model that is foreseen, by the weights of its cores, as
`hpo.compress.mpo_curves` measures it. Between its points, and after the last, its logarithm is straight; what
of the curve is not convex is replaced by its lower hull, and the budget is spent along the hulls from the
steepest piece to the flattest, so that where it ends one more weight would help every layer about equally.
Each layer then has the even bonds that its share buys.

Letters: L layers, P pieces of their curves.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from hpo.compress.allocate import Array
from hpo.compress.mpo_bonds import Bonds, Split
from hpo.compress.mpo_plan import bond_caps, parameters_of
from hpo.errors import Unsupported

_FLOOR = 0.5
"""No layer is left less than this part of the share that is kept of all."""

_POINTS = 64
"""Points at which a curve is read, over the weights of its layer."""


@dataclass(frozen=True)
class Curve:
    """What a layer is foreseen to cost, by the weights it keeps. A value, so that hulls are built once.

    Raises:
        Unsupported: the weights do not rise from 0, or not every one has a divergence above 0.
    """

    weights: tuple[float, ...]
    """Ascending from 0."""
    divergences: tuple[float, ...]
    """Nats per token, above 0."""
    dense: int
    """Weights of the dense layer; the curve goes on to there as it ends."""

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in pairwise(self.weights))
        if len(self.weights) < 2 or self.weights[0] != 0 or not ascending:
            raise Unsupported(
                f"a curve over weights {self.weights}", "allowed: two or more, ascending from 0"
            )
        if len(self.divergences) != len(self.weights) or min(self.divergences) <= 0:
            raise Unsupported(
                f"divergences {self.divergences} over weights {self.weights}", "give each one above 0"
            )


@dataclass(frozen=True)
class _Pieces:
    """Straight pieces of the hulls of all curves, by falling gain; arrays are (P,)."""

    layers: NDArray[np.int64]
    starts: Array
    """Weights of its layer at which a piece begins."""
    ends: Array


@dataclass(frozen=True)
class _Ladder:
    """Even bonds of a layer, by ascending weights."""

    bonds: tuple[Bonds, ...]
    weights: tuple[int, ...]


def adapted_bonds(
    keep_ratio: float, curves: Sequence[Curve], splits: Sequence[Split], largest: Sequence[int]
) -> list[Bonds]:
    """Return bonds that together keep about `keep_ratio` of the weights, as many as the curves ask for.

    `splits` are the sites of the layers; no bond is above the layer's `largest`. The ratio is met from below
    within the cheapest step of a bond; one too small for bond dimension 1, or for least shares that
    rounding raised, gives those.
    """
    ladders = [_ladder(split, most) for split, most in zip(splits, largest, strict=True)]
    dense = np.array([curve.dense for curve in curves], dtype=float)
    lows = np.array([ladder.weights[0] for ladder in ladders], dtype=float)
    highs = np.array([ladder.weights[-1] for ladder in ladders], dtype=float)
    budget = keep_ratio * float(dense.sum())
    wanted = _shared(budget, tuple(curves), np.clip(_FLOOR * keep_ratio * dense, lows, highs), highs)
    steps = _rounded(budget, wanted.tolist(), [ladder.weights for ladder in ladders])
    return [ladder.bonds[step] for ladder, step in zip(ladders, steps, strict=True)]


def _shared(budget: float, curves: tuple[Curve, ...], lows_L: Array, highs_L: Array) -> Array:
    """Return the real-valued weights of every layer: the lows, and what the best pieces add to them."""
    pieces = _pieces(curves)
    lows, highs = lows_L[pieces.layers], highs_L[pieces.layers]
    sizes = np.clip(pieces.ends, lows, highs) - np.clip(pieces.starts, lows, highs)
    spent = np.cumsum(sizes) - sizes
    given = np.clip(budget - float(lows_L.sum()) - spent, 0.0, sizes)
    return np.asarray(lows_L + np.bincount(pieces.layers, given, len(curves)))


def _rounded(budget: float, wanted_L: Sequence[float], ladders_L: Sequence[tuple[int, ...]]) -> list[int]:
    """Return the step of each layer's ladder at or below what is wanted, then step up, those first that
    rounding took most from, until no step fits into what is left."""
    steps = [bisect_right(ladder, w + 0.5) - 1 for ladder, w in zip(ladders_L, wanted_L, strict=True)]
    held = [ladder[step] for ladder, step in zip(ladders_L, steps, strict=True)]
    missing = [w - h for w, h in zip(wanted_L, held, strict=True)]
    order, left = sorted(range(len(steps)), key=lambda layer: -missing[layer]), budget - sum(held)
    moved = True
    while moved:
        moved = False
        for layer in order:
            ladder, step = ladders_L[layer], steps[layer]
            if step + 1 < len(ladder) and ladder[step + 1] - ladder[step] <= left:
                left -= ladder[step + 1] - ladder[step]
                steps[layer], moved = step + 1, True
    return steps


@lru_cache(maxsize=64)
def _pieces(curves: tuple[Curve, ...]) -> _Pieces:
    """Return the pieces of the curves' lower hulls, the steepest first."""
    found = [(gain, k, start, end) for k, curve in enumerate(curves) for gain, start, end in _hull(curve)]
    found.sort(key=lambda piece: -piece[0])
    _, layers, starts, ends = zip(*found, strict=True)
    return _Pieces(np.array(layers), np.array(starts), np.array(ends))


def _hull(curve: Curve) -> list[tuple[float, float, float]]:
    """Return the pieces of a curve's lower hull: gain a weight, start, end."""
    weights, logs = np.array(curve.weights), np.log(np.minimum.accumulate(curve.divergences))
    last = (logs[-1] - logs[-2]) / (weights[-1] - weights[-2])
    far = 2.0 * max(curve.dense, weights[-1])
    ends = np.append(weights, far), np.append(logs, logs[-1] + last * (far - weights[-1]))
    x = np.linspace(0.0, curve.dense, _POINTS)
    points: list[tuple[float, float]] = []
    for point in zip(x.tolist(), np.exp(np.interp(x, *ends)).tolist(), strict=True):
        while len(points) > 1 and _slope(points[-2], points[-1]) >= _slope(points[-2], point):
            points.pop()
        points.append(point)
    return [(-_slope(a, b), a[0], b[0]) for a, b in pairwise(points)]


def _slope(start: tuple[float, float], end: tuple[float, float]) -> float:
    return (end[1] - start[1]) / (end[0] - start[0])


@lru_cache(maxsize=4096)
def _ladder(split: Split, largest: int) -> _Ladder:
    """Return the bonds between bond dimension 1 and `largest` at every cut, one cut raised at a time.

    A layer that even bonds of 1 would not make smaller has one step, the dense layer.
    """
    caps, dense = bond_caps(*split), prod(split[0]) * prod(split[1])
    bonds = tuple(1 for _ in caps)
    if parameters_of(*split, bonds) >= dense:
        return _Ladder((bonds,), (dense,))
    found = [bonds]
    for bond in range(2, largest + 1):
        for k, cap in enumerate(caps):
            if bond <= cap:
                bonds = (*bonds[:k], bond, *bonds[k + 1 :])
                if _carries(split, bonds):
                    found.append(bonds)
    return _Ladder(tuple(found), tuple(parameters_of(*split, each) for each in found))


def _carries(split: Split, bonds: Bonds) -> bool:
    """Return whether every bond is one that its neighbours can feed; sites of 1 by 1 feed no more."""
    pairs, edges = [o * i for o, i in zip(*split, strict=True)], (1, *bonds, 1)
    return all(b <= min(edges[k] * pairs[k], pairs[k + 1] * edges[k + 2]) for k, b in enumerate(bonds))
