"""How long does the reference model take to train, and how well does it predict held-out text?

Trained from nothing into an empty cache (text building included), then judged on the evaluation and
final splits, which it never saw. A bigram model of the same text gives 3.67 bits per byte.

    python -m benchmarks.bench_reference
"""

import math
import os
import tempfile
import time
from dataclasses import dataclass

import torch

from hpo.measure.quality import mean_nll
from hpo.models.dense import load_model
from hpo.models.text import Role, read_corpus
from hpo.study import ModelSource, TextSource


@dataclass(frozen=True)
class Result:
    """Training time and bits per byte."""

    seconds: float
    parameters: int
    evaluation_bits: float
    final_bits: float


def run() -> Result:
    """Train once and judge."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HPO_CACHE"] = directory
        started = time.perf_counter()
        dense = load_model(ModelSource(source="reference"))
        seconds = time.perf_counter() - started
        bits = {}
        for role in (Role.EVALUATION, Role.FINAL):
            corpus = read_corpus(TextSource(reference=True), role, dense.tokenizer, dense.context)
            bits[role] = mean_nll(dense.module, corpus) * corpus.predicted / corpus.bytes / math.log(2)
    parameters = sum(p.numel() for p in dense.module.parameters())
    return Result(seconds, parameters, bits[Role.EVALUATION], bits[Role.FINAL])


def main() -> None:
    r = run()
    print("| training s | parameters | bits per byte, evaluation | bits per byte, final |\n|---|---|---|---|")
    print(f"| {r.seconds:.1f} | {r.parameters:,} | {r.evaluation_bits:.3f} | {r.final_bits:.3f} |")


if __name__ == "__main__":
    main()
