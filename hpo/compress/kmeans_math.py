"""Weighted k-means of numbers, of every row of a matrix by itself, in float64. Nothing is drawn at random.

Letters: R rows, C numbers of a row, K means, N bins of a row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

BINS = 64
"""Of a row, for the start: the cost of every run of bins is known at once, N^2 numbers a row."""
_ROWS = 1024
"""Rows that are worked on at a time: 35 MB for the costs of their runs."""
_ROUNDS = 100
"""Of Lloyd's; a few dozen are usual."""
_EVEN = 0.1
"""Share of the bins that go by count alone, so that none is large where the density cannot be told."""


def row_means(values_RC: Tensor, weights_RC: Tensor, count: int) -> Tensor:
    """Return `count` numbers for each row, (R, K) float64 in rising order, close to the ones with the least
    sum of ``weight * (value - nearest)^2``.

    A row starts with the best partition of its bins, found by dynamic programming as in Ckmeans.1d.dp (Wang
    and Song 2011), and Lloyd's rounds go on from there. Of rows of up to `BINS` numbers the start is the
    optimum. 16 means of 352 Gaussian numbers cost 0.6 % more than the optimum, on average over rows; from
    quantiles Lloyd's rounds end 63 % above it.

    Weights are not negative; a row of zeros counts as one of ones. Means that a row of few distinct values
    has no use for repeat others.
    """
    parts = zip(values_RC.double().split(_ROWS), weights_RC.double().split(_ROWS), strict=True)
    return torch.cat([_row_means(values, weights, count) for values, weights in parts])


def nearest(values_RC: Tensor, means_RK: Tensor) -> Tensor:
    """Return which of a row's means, in rising order, each value is nearest to, (R, C) int64."""
    borders = (means_RK[:, 1:] + means_RK[:, :-1]) / 2
    return torch.searchsorted(borders.contiguous(), values_RC.contiguous())


@dataclass(frozen=True)
class _Sorted:
    """Rows in rising order, with running sums, (R, C + 1), so that a run's mean and cost are differences."""

    values: Tensor
    weights: Tensor
    mass: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, values_RC: Tensor, weights_RC: Tensor) -> "_Sorted":
        is_empty = weights_RC.sum(1, keepdim=True) == 0
        weights = torch.where(is_empty, 1.0, weights_RC)
        # What weighs nothing is put where it takes no room from the rest.
        lowest = values_RC.amin(1, keepdim=True)
        values, order = torch.where(weights > 0, values_RC, lowest).sort(1)
        weights = weights.gather(1, order) / weights.sum(1, keepdim=True)
        sums = [functional.pad((weights * values**power).cumsum(1), (1, 0)) for power in range(3)]
        return cls(values, weights, sums[0], sums[1], sums[2])


def _row_means(values_RC: Tensor, weights_RC: Tensor, count: int) -> Tensor:
    rows = _Sorted.of(values_RC, weights_RC)
    means, before = _start(rows, count), None
    for _ in range(_ROUNDS):
        borders = torch.searchsorted(rows.values, ((means[:, 1:] + means[:, :-1]) / 2).contiguous())
        borders = functional.pad(functional.pad(borders, (1, 0)), (0, 1), value=rows.values.shape[1])
        if before is not None and torch.equal(borders, before):
            break
        means, before = _means_between(rows, borders, means), borders
    return means


def _means_between(rows: _Sorted, borders: Tensor, means_RK: Tensor) -> Tensor:
    """Return the mean of each run of a row; the one it had where the run is empty or weighs nothing.

    A run of little mass is a difference of large sums, so its mean is held between its ends.
    """
    starts, ends = borders[:, :-1], borders[:, 1:]
    mass = rows.mass.gather(1, ends) - rows.mass.gather(1, starts)
    first = rows.first.gather(1, ends) - rows.first.gather(1, starts)
    is_known = (mass > 0) & (ends > starts)
    lowest = rows.values.gather(1, starts.clamp(max=rows.values.shape[1] - 1))
    highest = rows.values.gather(1, (ends - 1).clamp(min=0))
    found = torch.where(is_known, first / torch.where(is_known, mass, 1.0), means_RK)
    found = torch.where(is_known, found.clamp(lowest, highest), found)
    return found.sort(1).values


def _start(rows: _Sorted, count: int) -> Tensor:
    """Return the means, (R, K), of the best partition of a row's bins into at most K runs."""
    bins = _bins(rows)
    mass, first, second = (sums.gather(1, bins) for sums in (rows.mass, rows.first, rows.second))
    cost = _costs(mass, first, second)
    least, chosen = cost[:, :, 0], []
    for _ in range(count - 1):
        least, start = (cost + least[:, None]).min(-1)
        chosen.append(start)
    end = torch.full_like(bins[:, :1], bins.shape[1] - 1)
    ends = [end]
    for start in reversed(chosen):
        end = start.gather(1, end)
        ends.append(end)
    borders = functional.pad(torch.cat(ends[::-1], 1), (1, 0))
    last = rows.values.gather(1, (bins.gather(1, borders[:, 1:]) - 1).clamp(min=0))
    return _means_between(rows, bins.gather(1, borders), last)


def _costs(mass_RN: Tensor, first_RN: Tensor, second_RN: Tensor) -> Tensor:
    """Return what a run of bins costs if it has one mean, by where it ends and starts, (R, N, N); infinity
    where it ends before it starts."""
    mass, first, second = (sums[:, :, None] - sums[:, None, :] for sums in (mass_RN, first_RN, second_RN))
    cost = (second - first**2 / torch.where(mass > 0, mass, 1.0)).clamp(min=0)
    backwards = torch.ones(cost.shape[1:], dtype=torch.bool, device=cost.device).triu(1)
    return cost.masked_fill(backwards, torch.inf)


def _bins(rows: _Sorted) -> Tensor:
    """Return where bins begin in the sorted rows, and the end, (R, N + 1): one a number if they are few.

    Else they lie as densely as the best means of a smooth density would, which is as its cube root (Panter
    and Dite 1951). Weight over distance to the neighbours stands for the density.
    """
    count, values = rows.values.shape[1], rows.values
    if count <= BINS:
        return torch.arange(count + 1, device=values.device).expand(len(values), -1)
    gaps = values.diff(dim=1) / 2
    spans = functional.pad(gaps, (1, 0)) + functional.pad(gaps, (0, 1))
    dense = spans.pow(2 / 3) * rows.weights.pow(1 / 3)
    total = dense.sum(1, keepdim=True)
    shares = _EVEN / count + (1 - _EVEN) * dense / torch.where(total > 0, total, 1.0)
    running = shares.cumsum(1)
    steps = torch.arange(1, BINS, device=values.device, dtype=values.dtype) / BINS
    inner = torch.searchsorted(running, (running[:, -1:] * steps).contiguous()) + 1
    return functional.pad(functional.pad(inner.clamp(max=count), (1, 0)), (0, 1), value=count)
