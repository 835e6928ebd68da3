"""Which healing gives most back in 50 steps, at half the linear weights of the reference model?

Whitened SVD at 50 % of the linear weights (uniform ranks), 50 steps of 4 sequences of the context, cosine
schedule. Each healer with the better of its learning rates, which are chosen by loss on calibration text
held out from healing, never by the evaluation text. Three seeds of the healing; mean and standard deviation
of the perplexity of evaluation text, and its ratio to the dense model's.

    python -m benchmarks.bench_healing
"""

from dataclasses import dataclass
from statistics import mean, stdev

import torch

from benchmarks.laboratory import Laboratory, Outcome, laboratories
from hpo.space import Value

SEEDS = (0, 1, 2)
STEPS = 50
BASE: dict[str, Value] = {"factorise": "whitened_svd", "factorise.keep_ratio": 0.5, "heal.steps": STEPS}

HEALERS: dict[str, tuple[dict[str, Value], tuple[float, ...]]] = {
    "full factors, cross-entropy": ({"heal": "fine_tune"}, (1e-3, 3e-3)),
    "full factors, distillation": ({"heal": "distil"}, (1e-3, 3e-3)),
    "full factors, hidden states": ({"heal": "fine_tune", "heal.loss": "hidden"}, (1e-3, 3e-3)),
    "full factors, block by block": ({"heal": "fine_tune", "heal.loss": "local"}, (1e-3, 3e-3)),
    "full factors, distillation, own text": ({"heal": "distil", "heal.text": "generated"}, (1e-3, 3e-3)),
    "full factors, distillation, after refit": ({"heal": "distil", "factorise.refit": True}, (1e-3, 3e-3)),
    "full factors, distillation, 16 sequences a step": ({"heal": "distil", "heal.batch": 16}, (1e-3, 3e-3)),
    "MeZO": ({"heal": "fine_tune", "heal.optimiser": "mezo"}, (1e-4, 1e-3)),
    "LoRA": ({"heal": "lora", "heal.loss": "distil"}, (3e-3, 1e-2)),
    "LoRA-FA": ({"heal": "lora_fa", "heal.loss": "distil"}, (3e-3, 1e-2)),
    "DoRA": ({"heal": "dora", "heal.loss": "distil"}, (3e-3, 1e-2)),
    "AdaLoRA": ({"heal": "adalora", "heal.loss": "distil"}, (1e-2, 3e-2)),
    "LoRETTA": ({"heal": "loretta", "heal.loss": "distil"}, (1e-2, 3e-2)),
    "nested ranks": ({"heal": "nested", "heal.loss": "distil"}, (1e-3, 3e-3)),
}


@dataclass(frozen=True)
class Row:
    """One healer at its better learning rate."""

    healer: str
    rate: float
    perplexity: tuple[float, ...]
    """By seed."""


def run(laboratory: Laboratory) -> list[Row]:
    """Return a row a healer."""
    return [_row(laboratory, name) for name in HEALERS]


def _row(laboratory: Laboratory, name: str) -> Row:
    values, rates = HEALERS[name]
    found = {rate: _healed(laboratory, {**BASE, **values, "heal.learning_rate": rate}) for rate in rates}
    rate = min(rates, key=lambda rate: mean(outcome.held_out for outcome in found[rate]))
    return Row(name, rate, tuple(outcome.final for outcome in found[rate]))


def _healed(laboratory: Laboratory, values: dict[str, Value]) -> list[Outcome]:
    return [laboratory.run(values, seed=seed) for seed in SEEDS]


def main() -> None:
    torch.set_num_threads(1)
    laboratory = laboratories()[0]
    dense = laboratory.dense_perplexity
    raw = laboratory.run({k: v for k, v in BASE.items() if not k.startswith("heal")})
    print(f"dense {dense:.3f}; whitened SVD, {raw.kept:.1%} kept, unhealed {raw.raw:.3f}\n")
    print("| healer | learning rate | perplexity | of dense |\n|---|---|---|---|")
    for row in sorted(run(laboratory), key=lambda row: mean(row.perplexity)):
        spread = f"{mean(row.perplexity):.3f} ± {stdev(row.perplexity):.3f}"
        print(f"| {row.healer} | {row.rate:g} | {spread} | {mean(row.perplexity) / dense:.3f} |")


if __name__ == "__main__":
    main()
