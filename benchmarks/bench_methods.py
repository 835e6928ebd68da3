"""In which order do the families come, unhealed, at equal shares of the linear weights?

The reference model and, where they are at hand, two small published ones on stories they were not calibrated
on. Perplexity of evaluation text; what each plan keeps differs from the share asked by less than half a
percent except where the table's last column says so (bonds and heads come in steps).

    python -m benchmarks.bench_methods
"""

from dataclasses import dataclass

import torch

from benchmarks.laboratory import Laboratory, laboratories
from hpo.errors import Unsupported
from hpo.space import Value

SHARES = (0.8, 0.6, 0.4)
EXTRA = (0.5,)
"""Where tensor trains are compared with and without sweeps."""

SINGLE: dict[str, dict[str, Value]] = {
    "svd": {"factorise": "svd"},
    "fwsvd": {"factorise": "fwsvd"},
    "asvd, alpha 0.5": {"factorise": "asvd", "factorise.alpha": 0.5},
    "whitened svd": {"factorise": "whitened_svd"},
    "whitened svd, refit": {"factorise": "whitened_svd", "factorise.refit": True},
    "whitened svd, spectral with floor": {
        "factorise": "whitened_svd",
        "factorise.allocation": "spectral",
        "factorise.floor": 0.5,
    },
    "whitened svd, spectral, no floor": {
        "factorise": "whitened_svd",
        "factorise.allocation": "spectral",
        "factorise.floor": 0.0,
    },
    "basis sharing": {"factorise": "basis_sharing"},
    "modegpt": {"factorise": "modegpt"},
    "mpo, 2 sites": {"factorise": "mpo"},
    "mpo, 2 sites, 3 sweeps": {"factorise": "mpo", "factorise.sweeps": 3},
    "mpo, 3 sites": {"factorise": "mpo", "factorise.sites": 3},
    "mpo, 3 sites, 3 sweeps": {"factorise": "mpo", "factorise.sites": 3, "factorise.sweeps": 3},
}


@dataclass(frozen=True)
class Row:
    """One method at one share of the linear weights."""

    model: str
    method: str
    share: float
    kept: float
    perplexity: float


def run(laboratory: Laboratory) -> list[Row]:
    """Return a row a method and share; what the model does not allow is left out, with a line saying so."""
    rows = []
    for share in (*SHARES, *EXTRA):
        for name, values in SINGLE.items():
            if share in EXTRA and values["factorise"] != "mpo":
                continue
            try:
                outcome = laboratory.run({**values, "factorise.keep_ratio": share})
            except Unsupported as error:
                print(f"{laboratory.name}: {name} at {share} is refused: {error.message}\n")
                continue
            rows.append(Row(laboratory.name, name, share, outcome.kept, outcome.final))
    return rows


def main() -> None:
    torch.set_num_threads(1)
    for laboratory in laboratories():
        rows = run(laboratory)
        shares = sorted({row.share for row in rows}, reverse=True)
        print(f"**{laboratory.name}**, dense {laboratory.dense_perplexity:.3f}\n")
        print("| method | " + " | ".join(f"{share:.0%}" for share in shares) + " | kept, where off by more |")
        print("|---|" + "---|" * (len(shares) + 1))
        for name in SINGLE:
            mine = {row.share: row for row in rows if row.method == name}
            cells = [f"{mine[s].perplexity:.2f}" if s in mine else "" for s in shares]
            off = [f"{mine[s].kept:.3f}" for s in shares if s in mine and abs(mine[s].kept - s) > 0.005]
            print(f"| {name} | {' | '.join(cells)} | {', '.join(off)} |")
        print(f"\n{order(rows)}\n")


def order(rows: list[Row]) -> str:
    """Say where whitened <= ASVD <= plain SVD holds, and what the sweeps and the floor bring."""
    value = {(row.method, row.share): row.perplexity for row in rows}
    holds = [
        share
        for share in SHARES
        if value["whitened svd", share] <= value["asvd, alpha 0.5", share] <= value["svd", share]
    ]
    shares = ", ".join(f"{share:.0%}" for share in holds) or "no share"
    said = [f"Whitened <= ASVD <= plain SVD at {shares} (of 80%, 60%, 40%)."]
    for sites in ("2 sites", "3 sites"):
        before, after = value.get((f"mpo, {sites}", 0.5)), value.get((f"mpo, {sites}, 3 sweeps", 0.5))
        if before and after:
            said.append(f"Sweeps change MPO of {sites} at 50% by {after / before - 1:+.1%}.")
    floor, uniform = value["whitened svd, spectral with floor", 0.8], value["whitened svd", 0.8]
    said.append(f"Allocation with a floor changes 80% by {floor / uniform - 1:+.1%} against uniform.")
    return " ".join(said)


if __name__ == "__main__":
    main()
