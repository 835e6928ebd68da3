"""At equal parameters and identical healing, is a matrix product operator better than whitened SVD?

The reference model; calibration, healing and evaluation text are disjoint. For every share of the linear
weights each method gets the same budget (what it then holds is in the table), the same healing (full
factors, distillation from the dense model, 50 steps, cosine schedule, the best of three learning rates for
each method and share), and the same seeds. Perplexity, mean and standard deviation over the healing's seeds.
Both families are there with the same share of every layer, and with shares by what measurement says of each.

    python -m benchmarks.bench_mpo
"""

from dataclasses import dataclass
from statistics import mean, stdev

import torch

from benchmarks.laboratory import Laboratory, laboratories
from hpo.space import Value

SHARES = (0.8, 0.65, 0.5, 0.35, 0.2)
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
STEPS = 50

METHODS: dict[str, dict[str, Value]] = {
    "whitened SVD": {"factorise": "whitened_svd"},
    "whitened SVD, by sensitivity": {"factorise": "whitened_svd", "factorise.allocation": "sensitivity"},
    "MPO, 2 sites, TT-SVD": {"factorise": "mpo", "factorise.sites": 2},
    "MPO, 2 sites, 3 sweeps": {"factorise": "mpo", "factorise.sites": 2, "factorise.sweeps": 3},
    "MPO, 3 sites, 3 sweeps": {"factorise": "mpo", "factorise.sites": 3, "factorise.sweeps": 3},
    "MPO, 2 sites, 3 sweeps, adapted": {
        "factorise": "mpo",
        "factorise.sites": 2,
        "factorise.sweeps": 3,
        "factorise.bonds": "adapted",
    },
}


@dataclass(frozen=True)
class Row:
    """One method at one share of the linear weights."""

    method: str
    share: float
    kept: float
    """What the plan keeps of them."""
    raw: float
    rate: float
    """Learning rate that served it best."""
    healed: tuple[float, ...]
    """Perplexity by seed."""


def run(laboratory: Laboratory) -> list[Row]:
    """Return a row a method and share."""
    return [_row(laboratory, name, share) for share in SHARES for name in METHODS]


def _row(laboratory: Laboratory, name: str, share: float) -> Row:
    rows = [_at_rate(laboratory, name, share, rate) for rate in RATES]
    return min(rows, key=_healed)


def _at_rate(laboratory: Laboratory, name: str, share: float, rate: float) -> Row:
    values: dict[str, Value] = {
        **METHODS[name],
        "factorise.keep_ratio": share,
        "heal": "distil",
        "heal.steps": STEPS,
        "heal.learning_rate": rate,
    }
    outcomes = [laboratory.run(values, seed=seed) for seed in SEEDS]
    first = outcomes[0]
    return Row(name, share, first.kept, first.raw, rate, tuple(outcome.final for outcome in outcomes))


def main() -> None:
    torch.set_num_threads(1)
    laboratory = laboratories()[0]
    rows = run(laboratory)
    print(f"dense: {laboratory.dense_perplexity:.3f}\n")
    print("| share | method | kept | unhealed | healed | learning rate |\n|---|---|---|---|---|---|")
    for row in rows:
        spread = f"{_healed(row):.3f} ± {stdev(row.healed):.3f}"
        print(f"| {row.share} | {row.method} | {row.kept:.3f} | {row.raw:.2f} | {spread} | {row.rate:g} |")
    print(f"\n{verdict(rows)}")


def verdict(rows: list[Row]) -> str:
    """Say at which shares the best MPO beats the best whitened SVD by more than both spreads, and where it
    loses so."""
    better, worse = [], []
    for share in SHARES:
        svd, best = (
            min((r for r in rows if r.share == share and r.method.startswith(name)), key=_healed)
            for name in ("whitened SVD", "MPO")
        )
        margin = stdev(svd.healed) + stdev(best.healed)
        difference = _healed(best) - _healed(svd)
        if difference < -margin:
            better.append(f"{share} ({best.method}: {difference / _healed(svd):+.1%})")
        elif difference > margin:
            worse.append(f"{share} ({best.method}: {difference / _healed(svd):+.1%})")
    said = [
        f"the best MPO beats it at {', '.join(better) or 'no share'}",
        f"loses at {', '.join(worse) or 'none'}",
    ]
    return "Against the best whitened SVD, healed alike, " + " and ".join(said) + "."


def _healed(row: Row) -> float:
    return mean(row.healed)


if __name__ == "__main__":
    main()
