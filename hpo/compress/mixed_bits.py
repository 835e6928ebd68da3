"""How many bits each layer gets, when all together may have so many. On plain arrays.

Letters: L layers, B numbers of bits that a layer may have, ascending.
"""

import numpy as np

from hpo.compress.budget import Array, Ints
from hpo.compress.grid import UNITS

BITS = np.array(sorted(UNITS))
"""What a layer may have."""


def allotted(budget: float, slack: float, weights_L: Array, rises_LB: Array) -> Ints:
    """Return bits for every layer, (L,), that together raise the loss least, if the layers' rises add up.

    ``rises_LB[l, b]`` is how much the loss rises when layer l alone has ``BITS[b]`` bits a weight. All begin
    with the fewest; then whatever takes most off the loss for its bits is bought first, along the lower
    convex hull of each layer's curve, and what is left goes to steps that fit. So `budget`, in bits, is met
    from below. Where more than `slack` is left, layers being few, the pair of changes that comes within
    the slack at the least loss is made, or else the one that comes nearest.
    """
    gains = gains_per_bit(rises_LB) / weights_L[:, None]
    places, left = _bought(budget, weights_L, gains)
    if left > slack:
        places = _nudged(places, left, slack, weights_L, _falling(rises_LB))
    return np.asarray(BITS[places], dtype=np.int64)


def moved(bits_L: Ints, steps_L: Ints) -> Ints:
    """Return bits so many steps along `BITS` up, or down where negative, (L,); kept within them."""
    places = np.searchsorted(BITS, bits_L) + steps_L
    return np.asarray(BITS[np.clip(places, 0, len(BITS) - 1)], dtype=np.int64)


def gains_per_bit(rises_LB: Array) -> Array:
    """Return how much one more bit of a layer takes off the loss, (L, B - 1), from each number of bits on.

    Taken along the lower convex hull, so it never grows with the bits; what noise lets rise with the bits is
    lifted to what comes later first, so it is never below 0.
    """
    falls = -np.diff(_falling(rises_LB), axis=1)
    runs = np.diff(BITS).astype(float)
    count = len(runs)
    slopes = np.empty_like(falls)
    for k in range(count):
        slopes[:, k] = np.min(
            [np.max([_mean_slope(falls, runs, i, j) for j in range(k, count)], axis=0) for i in range(k + 1)],
            axis=0,
        )
    return slopes


def _mean_slope(falls_LB: Array, runs_B: Array, first: int, last: int) -> Array:
    inside = slice(first, last + 1)
    return np.asarray(falls_LB[:, inside].sum(axis=1) / runs_B[inside].sum())


def _falling(rises_LB: Array) -> Array:
    return np.maximum.accumulate(rises_LB[:, ::-1], axis=1)[:, ::-1]


def _bought(budget: float, weights_L: Array, gains_LB: Array) -> tuple[Ints, float]:
    """Return which number of bits each layer gets, (L,), and what is left of the budget."""
    prices = weights_L[:, None] * np.diff(BITS)
    left = budget - float(weights_L.sum()) * float(BITS[0])
    order = np.argsort(-gains_LB, axis=None, kind="stable")
    spent = np.cumsum(prices.ravel()[order])
    taken = order[: int(np.searchsorted(spent, left, side="right"))]
    places = np.bincount(taken // prices.shape[1], minlength=len(weights_L))
    left -= float(spent[len(taken) - 1]) if len(taken) else 0.0
    while True:
        layers = np.flatnonzero(places < len(BITS) - 1)
        layers = layers[prices[layers, places[layers]] <= left]
        if not len(layers):
            return places, left
        best = layers[np.argmax(gains_LB[layers, places[layers]])]
        left -= float(prices[best, places[best]])
        places[best] += 1


def _nudged(places_L: Ints, left: float, slack: float, weights_L: Array, rises_LB: Array) -> Ints:
    """Change one layer, or two, so that no more than `slack` is left or lacking, or else the least."""
    layers = np.arange(len(places_L))
    prices = (weights_L[:, None] * (BITS - BITS[places_L][:, None])).ravel()
    losses = (rises_LB - rises_LB[layers, places_L][:, None]).ravel()
    lefts = left - (prices[:, None] + prices)
    worth = np.where(np.abs(lefts) <= slack, losses[:, None] + losses, np.inf)
    # A change of a layer's bits and another one of the same layer are no pair; the change to what it has is
    # none, so that a single change is a pair as well.
    owner = np.repeat(layers, len(BITS))
    is_none = prices == 0
    is_pair = (owner[:, None] != owner) | is_none[:, None] | is_none
    worth[~is_pair] = np.inf
    if not np.isfinite(worth).any():
        worth = np.where(is_pair, np.abs(lefts), np.inf)
    places = places_L.copy()
    for change in np.unravel_index(int(np.argmin(worth)), worth.shape):
        if not is_none[change]:
            places[owner[change]] = change % len(BITS)
    return places
