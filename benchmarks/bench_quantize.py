"""In which order do quantizers come at equal bits, and how much of the loss does a correction win back?

The reference model and, where they are at hand, two small published ones on stories they were not calibrated
on. Perplexity of evaluation text, nothing healed. Bytes are those of the linear layers over the dense ones',
scales, tables and outliers included. The spread of a perplexity over text is about 1.5 %; differences
between two rows on the same text are far less noisy, but below half a percent they are called equal here.

    python -m benchmarks.bench_quantize
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from benchmarks.laboratory import Laboratory, laboratories
from hpo.space import Value

GRIDS: dict[str, dict[str, Value]] = {
    "int4 g32": {"quantize.bits": 4, "quantize.group_size": 32},
    "int3 g32": {"quantize.bits": 3, "quantize.group_size": 32},
    "int3 row": {"quantize.bits": 3, "quantize.group_size": 0},
    "int2 g32": {"quantize.bits": 2, "quantize.group_size": 32},
}
ORDERED = ("gptq", "awq", "rtn")
CORRECTIONS = (0.05, 0.1, 0.2)
EQUAL = 0.005

OTHERS: dict[str, dict[str, Value]] = {
    "int8, integer products": {"quantize": "int8"},
    "int8 row": {"quantize": "rtn", "quantize.bits": 8, "quantize.group_size": 0},
    "nf4 g32": {"quantize": "nf4", "quantize.group_size": 32, "quantize.last_group": "short"},
    "nf4 g32, double": {
        "quantize": "nf4",
        "quantize.group_size": 32,
        "quantize.last_group": "short",
        "quantize.double": True,
    },
    "squeezellm 4 bits": {"quantize": "squeezellm", "quantize.bits": 4},
    "squeezellm 3 bits": {"quantize": "squeezellm", "quantize.bits": 3},
    "squeezellm 3 bits, no outliers": {
        "quantize": "squeezellm",
        "quantize.bits": 3,
        "quantize.outliers": 0.0,
        "quantize.sensitive": 0.0,
    },
    "ternary rows": {"quantize": "ternary"},
}


@dataclass(frozen=True)
class Row:
    """One quantizer on one model."""

    name: str
    share: float
    """Bytes of the linear layers over the dense ones'."""
    perplexity: float


def measured(laboratory: Laboratory, name: str, values: dict[str, Value]) -> Row:
    outcome = laboratory.run(values)
    bits = outcome.plan.architecture.weight_bits
    held = sum(layer.costs.resident * bits / 8 + layer.costs.packed_bytes for layer in outcome.plan.layers)
    return Row(name, held * 8 / bits / outcome.plan.architecture.linear_parameters, outcome.final)


def main() -> None:
    torch.set_num_threads(1)
    for laboratory in laboratories():
        dense = laboratory.dense_perplexity
        print(f"**{laboratory.name}**, dense {dense:.3f}\n")
        print("| grid | " + " | ".join(ORDERED) + " | bytes, gptq / awq / rtn | order |")
        print("|---|---|---|---|---|---|")
        for grid, knobs in GRIDS.items():
            rows = [
                measured(laboratory, method, {"quantize": method, **knobs, "quantize.last_group": "short"})
                for method in ORDERED
            ]
            values = [row.perplexity for row in rows]
            shares = " / ".join(f"{row.share:.3f}" for row in rows)
            print(f"| {grid} | {' | '.join(f'{v:.3f}' for v in values)} | {shares} | {verdict(values)} |")
        print("\n| other | perplexity | of dense | bytes |\n|---|---|---|---|")
        for name, chosen in OTHERS.items():
            row = measured(laboratory, name, chosen)
            print(f"| {name} | {row.perplexity:.3f} | {row.perplexity / dense:.3f} | {row.share:.3f} |")
        print(f"\n{corrected(laboratory)}\n")


def verdict(values: list[float]) -> str:
    """Say whether gptq <= awq <= rtn, differences of half a percent counting as none."""
    pairs = list(pairwise(values))
    if all(a <= b for a, b in pairs):
        return "holds"
    return "equal within 0.5 %" if all(a <= b * (1 + EQUAL) for a, b in pairs) else "does not hold"


def corrected(laboratory: Laboratory) -> str:
    """Return how much of the loss of int3 a low-rank correction wins back, in nats per token."""
    base: dict[str, Value] = {"quantize": "rtn", **GRIDS["int3 g32"], "quantize.last_group": "short"}
    dense = torch.tensor(laboratory.dense_perplexity).log()
    bare = torch.tensor(measured(laboratory, "", base).perplexity).log() - dense
    said = []
    for share in CORRECTIONS:
        row = measured(laboratory, "", {**base, "quantize.correction": share})
        won = 1 - float((torch.tensor(row.perplexity).log() - dense) / bare)
        said.append(f"{share:.0%} of the break-even rank {won:.0%} (bytes {row.share:.3f})")
    return f"A correction of int3 g32 wins back of its loss: {'; '.join(said)}."


if __name__ == "__main__":
    main()
