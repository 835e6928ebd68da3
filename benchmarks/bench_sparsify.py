"""What do zeros cost, by method and pattern, and what do they save, by store? Unhealed.

The reference model and, where they are at hand, two small published ones on stories they were not calibrated
on. Perplexity of evaluation text. Nothing here is faster than the dense model.

    python -m benchmarks.bench_sparsify
"""

import torch

from benchmarks.laboratory import Laboratory, laboratories
from hpo.errors import Unsupported
from hpo.space import Candidate, Value

METHODS: dict[str, dict[str, Value]] = {
    "magnitude": {"sparsify": "magnitude"},
    "magnitude by row": {"sparsify": "magnitude", "sparsify.compare": "row"},
    "wanda": {"sparsify": "wanda"},
    "wanda by matrix": {"sparsify": "wanda", "sparsify.compare": "matrix"},
    "sparsegpt": {"sparsify": "sparsegpt"},
}

PATTERNS: dict[str, dict[str, Value]] = {
    "50 %": {"sparsify.sparsity": 0.5},
    "70 %": {"sparsify.sparsity": 0.7},
    "70 %, owl": {"sparsify.sparsity": 0.7, "sparsify.allocation": "owl"},
    "4:8": {"sparsify.pattern": "4:8"},
    "2:4": {"sparsify.pattern": "2:4"},
}

ROUNDED: dict[str, Value] = {"quantize": "rtn", "quantize.group_size": 32, "quantize.last_group": "short"}

STORES: dict[str, dict[str, Value]] = {
    "dense": {},
    "bitmap": {"sparsify.store": "bitmap"},
    "n_m": {"sparsify.store": "n_m"},
    "csr": {"sparsify.store": "csr"},
    "dense, 4 bits": ROUNDED,
    "bitmap, 4 bits": {"sparsify.store": "bitmap", **ROUNDED},
}
"""Of SparseGPT's 2:4."""


def costs_of_zeros(laboratory: Laboratory) -> list[str]:
    """Return the lines of a table of methods and patterns; what a model's shapes do not allow is a dash."""
    lines = [f"| method | {' | '.join(PATTERNS)} |", f"|---|{'---:|' * len(PATTERNS)}"]
    for name, method in METHODS.items():
        cells = []
        for pattern in PATTERNS.values():
            # In groups a row is compared with nothing else, whatever is asked for.
            is_same = "sparsify.compare" in method and "sparsify.pattern" in pattern
            cells.append("" if is_same else _perplexity(laboratory, {**method, **pattern}))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _perplexity(laboratory: Laboratory, values: dict[str, Value]) -> str:
    try:
        return f"{laboratory.run(values).final:.3f}"
    except Unsupported:
        return "-"


def savings_of_stores(laboratory: Laboratory) -> list[str]:
    """Return the lines of a table of stores: bytes of the whole model, and perplexity."""
    dense = laboratory.plan(Candidate()).weight_bytes
    lines = ["| store of 2:4 | bytes | of dense | perplexity |", "|---|---:|---:|---:|"]
    for name, store in STORES.items():
        outcome = laboratory.run({**METHODS["sparsegpt"], **PATTERNS["2:4"], **store})
        held = outcome.plan.weight_bytes
        lines.append(f"| {name} | {held} | {held / dense:.3f} | {outcome.final:.3f} |")
    outcome = laboratory.run(ROUNDED)
    held = outcome.plan.weight_bytes
    return [*lines, f"| no zeros, 4 bits | {held} | {held / dense:.3f} | {outcome.final:.3f} |"]


def main() -> None:
    torch.set_num_threads(1)
    for laboratory in laboratories():
        print(f"**{laboratory.name}**, dense {laboratory.dense_perplexity:.3f}\n")
        print("\n".join([*costs_of_zeros(laboratory), "", *savings_of_stores(laboratory), ""]))


if __name__ == "__main__":
    main()
