"""In which order do pruning methods come, single weights and whole structures, unhealed?

The reference model and, where they are at hand, two small published ones on stories they were not calibrated
on. Perplexity of evaluation text. Structured methods are asked for a share of the linear layers' weights and
meet it within half a percent except where the table says what was kept instead.

    python -m benchmarks.bench_prune
"""

import torch

from benchmarks.laboratory import Laboratory, Outcome, laboratories
from hpo.errors import Unsupported
from hpo.space import Value

SPARSE = ("magnitude", "wanda", "sparsegpt")
PATTERNS: dict[str, dict[str, Value]] = {
    "50 %": {"sparsify.sparsity": 0.5},
    "2:4": {"sparsify.pattern": "2:4"},
    "60 %": {"sparsify.sparsity": 0.6},
}
STRUCTURED: dict[str, dict[str, Value]] = {
    "wanda_sp": {"prune": "wanda_sp"},
    "flap": {"prune": "flap"},
    "llm_pruner": {"prune": "llm_pruner"},
    "slicegpt": {"prune": "slicegpt"},
    "drop_blocks": {"prune": "drop_blocks"},
    "modegpt": {"factorise": "modegpt"},
}
SHARES = (0.9, 0.8, 0.7, 0.5)


def tried(laboratory: Laboratory, values: dict[str, Value]) -> Outcome | None:
    """Return what came of a candidate; None where the model does not allow it."""
    try:
        return laboratory.run(values)
    except Unsupported:
        return None


def main() -> None:
    torch.set_num_threads(1)
    for laboratory in laboratories():
        print(f"**{laboratory.name}**, dense {laboratory.dense_perplexity:.3f}\n")
        print("| single weights | " + " | ".join(PATTERNS) + " |")
        print("|---|" + "---|" * len(PATTERNS))
        for method in SPARSE:
            found = [tried(laboratory, {"sparsify": method, **knobs}) for knobs in PATTERNS.values()]
            print(f"| {method} | {' | '.join(f'{one.final:.3f}' if one else 'refused' for one in found)} |")
        print("\n| structures, kept | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
        print("|---|" + "---|" * len(SHARES))
        for name, values in STRUCTURED.items():
            stage = next(iter(values))
            cells = []
            for share in SHARES:
                one = tried(laboratory, {**values, f"{stage}.keep_ratio": share})
                off = f" (kept {one.kept:.2f})" if one and abs(one.kept - share) > 0.005 else ""
                cells.append(f"{one.final:.3f}{off}" if one else "refused")
            print(f"| {name} | {' | '.join(cells)} |")
        print()


if __name__ == "__main__":
    main()
