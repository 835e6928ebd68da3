"""From a few knobs to a real-valued rank per layer. Plain functions on arrays.

Letters: L layers, K ranks, T thresholds, S shares of a layer's weights, B blocks. The rules say who gets
more and who less; `hpo.compress.budget` fits their ranks to a budget and rounds them. A share is of the
dense weights; ``tops`` are the real-valued ranks at which factors hold as many weights as the matrix.
"""

import bisect
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hpo.compress.budget import Room, filled

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def uniform_ranks(keep_ratio: float, outs_L: Ints, ins_L: Ints) -> Array:
    """Return the real-valued ranks that keep the same share of every layer's weights, shape (L,).

    ``rank = keep_ratio * out * in / (out + in)``; the usual definition of a compression ratio, e.g.
    in SVD-LLM (Wang et al. 2024, arXiv:2403.07378).
    """
    return np.asarray(keep_ratio * outs_L * ins_L / (outs_L + ins_L), dtype=float)


def tail_energy(singular_values: Array) -> Array:
    """Return the share of squared norm lost at rank 0..K, shape (K + 1,), from 1 down to 0."""
    energy = np.asarray(singular_values, dtype=float) ** 2
    total = energy.sum()
    if total <= 0:
        return np.zeros(len(energy) + 1)
    tail = np.concatenate([np.cumsum(energy[::-1])[::-1], [0.0]])
    return np.asarray(tail / total)


def rank_for_energy(tail: Array, kept: float) -> int:
    """Return the smallest rank that keeps at least the share `kept` of the squared norm, at least 1."""
    # `tail` falls with the rank; the first entry at or below what may be lost is the answer.
    rank = len(tail) - int(np.searchsorted(tail[::-1], 1.0 - kept + 1e-12, side="right"))
    return max(rank, 1)


def spectral_table(tails: Sequence[Array], levels_T: Array) -> Array:
    """Return the rank each layer needs to lose at most each level of energy, shape (T, L)."""
    columns = [len(tail) - np.searchsorted(tail[::-1], levels_T + 1e-12, side="right") for tail in tails]
    return np.maximum(np.stack(columns, axis=1), 1).astype(float)


def spectral_ranks(budget: float, table_TL: Array, room: Room, weights_L: Array) -> Array:
    """Return ranks that lose about the same share of energy everywhere and cost about `budget`.

    `table_TL` comes from `spectral_table` with levels descending, so that cost rises along T.
    `weights_L` multiply a layer's rank. Swift-SVD (arXiv:2604.01609) finds that free allocation hurts
    and one whose least rank is half the uniform one helps.
    """

    def ranks_at(level: int) -> Array:
        return np.asarray(np.clip(table_TL[level] * weights_L, room.bottoms, room.tops))

    above = bisect.bisect_left(
        range(len(table_TL)), budget, key=lambda level: float(ranks_at(level) @ room.costs)
    )
    if above == 0:
        return ranks_at(0)
    if above == len(table_TL):
        return ranks_at(above - 1)
    below, over = ranks_at(above - 1), ranks_at(above)
    gap = float((over - below) @ room.costs)
    share = (budget - float(below @ room.costs)) / max(gap, 1e-12)
    return np.asarray(below + share * (over - below))


def sensitivity_ranks(budget: float, shares_S: Array, rises_LS: Array, room: Room) -> Array:
    """Return ranks that cost `budget` and together raise the loss least, if the layers' rises add up.

    ``rises_LS[l, s]`` is how much the loss rises when layer l alone keeps the share ``shares_S[s]``
    (ascending) of its weights; at 1 it does not rise. Each layer's curve is replaced by its lower convex
    hull, which is spent along from the steepest piece to the flattest: where the budget ends, one more
    weight would help every layer about equally. Below the smallest share the first piece goes on.

    The measurement is CompactifAI's profile (Tomut et al. 2024, arXiv:2401.14109) and ASVD's (Yuan et
    al. 2023, arXiv:2312.05821), who set a threshold to it; equal marginal loss is the better rule on
    the models tried here (perplexity 6.4 against 6.6 at 40 %, 12.4 against 22.1 at 80 %).
    """
    ranks = room.bottoms.copy()
    left = budget - float(ranks @ room.costs)
    pieces = []
    for layer, rises_S in enumerate(rises_LS):
        start = ranks[layer] / room.tops[layer]
        for gain, low, high in _hull(shares_S, rises_S):
            first = start if low == shares_S[0] else max(low, start)
            if high > first:
                pieces.append((gain / room.dense[layer], layer, (high - first) * room.dense[layer]))
    for _, layer, weights in sorted(pieces, key=lambda piece: -piece[0]):
        given = min(weights, max(left, 0.0))
        ranks[layer] += given / room.costs[layer]
        left -= given
    return np.asarray(ranks)


def _hull(shares_S: Array, rises_S: Array) -> list[tuple[float, float, float]]:
    """Return the pieces of the lower convex hull of a falling curve: fall per share, start, end.

    What noise lets rise with the share is lifted to what comes later first, so that no fall is below 0.
    """
    shares, rises = np.append(shares_S, 1.0), np.append(rises_S, 0.0)
    falling = np.maximum.accumulate(rises[::-1])[::-1]
    points: list[tuple[float, float]] = []
    for x, y in zip(shares.tolist(), falling.tolist(), strict=True):
        while len(points) > 1 and _is_above(points[-1], points[-2], (x, y)):
            points.pop()
        points.append((x, y))
    return [((y - w) / (z - x), x, z) for (x, y), (z, w) in pairwise(points)]


def _is_above(middle: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> bool:
    run, rise = end[0] - start[0], end[1] - start[1]
    return (middle[1] - start[1]) * run >= rise * (middle[0] - start[0])


def waterfill_ranks(keep_ratio: float, losses_L: Array, groups_L: Ints, room: Room) -> Array:
    """Return ranks where, among layers of a group, the share removed is in proportion to 1 / log(loss).

    `losses_L` are the truncation losses at uniform ranks, in any unit that grows with the text; the
    logarithm is of e + loss, so that a layer that loses nothing has no say over the sign. Groups are
    the layers' types, and each loses on average what is asked of all.

    Source: SVD-LLM V2, Wang et al. 2025, arXiv:2503.12340.
    """
    weights = 1 / np.log(np.e + losses_L)
    means = np.bincount(groups_L, weights) / np.maximum(np.bincount(groups_L), 1)
    return _kept(1 - keep_ratio, weights / means[groups_L], room)


def softmax_ranks(
    keep_ratio: float, influences_B: Array, blocks_L: Ints, temperature: float, room: Room
) -> Array:
    """Return ranks where the share removed of a block is in proportion to exp(-influence / temperature).

    `influences_B` say how much each block changes what passes through it; `blocks_L` is the block of
    each layer. A high temperature removes the same everywhere.

    Source: MoDeGPT, Lin et al. 2024, arXiv:2408.09632.
    """
    exponents = -influences_B / temperature
    weights = np.exp(exponents - exponents.max())
    return _kept(1 - keep_ratio, (weights / weights.mean())[blocks_L], room)


def _kept(removed: float, weights_L: Array, room: Room) -> Array:
    """Return ranks after the share `removed` of all weights is taken, from each layer by its weight.

    No least rank is passed; what a layer cannot give is taken from the others.
    """
    wanted, total = weights_L * room.tops, removed * float(room.dense.sum())
    taken = filled(wanted, total, room.costs, np.zeros_like(wanted), room.tops - room.bottoms)
    return np.asarray(room.tops - taken)
