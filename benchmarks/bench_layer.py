"""How much faster than a dense layer of 4096 x 4096 is its factored form at a quarter of the weights?

Random weights, float32, one thread, eager. Dense and factored take turns in one process; the figure is the
ratio of their fastest repeats (20th percentile of the calls of a repeat), which noise can only lower.

    python -m benchmarks.bench_layer
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from hpo.compress.layers import LowRankLinear

FEATURES = 4096
KEPT = 0.25
REPEATS = 7


@dataclass(frozen=True)
class Row:
    """Milliseconds of one forward of a module."""

    batch: int
    dense_ms: float
    factored_ms: float

    @property
    def speedup(self) -> float:
        return self.dense_ms / self.factored_ms


def run() -> list[Row]:
    """Return a row a batch size."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rank = int(KEPT * FEATURES / 2)
    dense = nn.Linear(FEATURES, FEATURES, bias=False)
    factored = LowRankLinear(torch.randn(FEATURES, rank) / 64, torch.randn(rank, FEATURES) / 64, None)
    rows = []
    with torch.no_grad():
        for batch, calls in ((1, 30), (16, 15), (128, 5)):
            x = torch.randn(batch, FEATURES)
            fastest = [float("inf"), float("inf")]
            for _ in range(REPEATS):
                for k, module in enumerate((dense, factored)):
                    fastest[k] = min(fastest[k], _milliseconds(partial(module, x), calls))
            rows.append(Row(batch, *fastest))
    return rows


def _milliseconds(call: Callable[[], Tensor], calls: int) -> float:
    call()
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.quantile(times, 0.2))


def main() -> None:
    print("| batch | dense ms | factored ms | times faster |\n|---|---|---|---|")
    for row in run():
        print(f"| {row.batch} | {row.dense_ms:.2f} | {row.factored_ms:.2f} | {row.speedup:.2f} |")


if __name__ == "__main__":
    main()
