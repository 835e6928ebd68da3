"""What does the compress step of a trial cost once the factors are cached?

One Llama block of 7 layers, hidden 2048, intermediate 5632, random weights, float32, one thread, plain
and whitened factors. From scratch: Gram + float64 eigendecompositions of every layer (without
the calibration forward). Cached: plan, copy the model without its weights, slice memory-mapped factors.

    python -m benchmarks.bench_compress
"""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hpo.compress.applying import compressed
from hpo.compress.bases import PLAIN, WHITENED, SvdBasis
from hpo.compress.planner import plan_of
from hpo.compress.profiling import Profiler
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from hpo.space import Candidate
from hpo.study import ModelSource

CONTEXT = 64
REPEATS = 5


@dataclass(frozen=True)
class Row:
    """Seconds for one method."""

    method: str
    keep_ratio: float
    scratch_s: float
    cached_s: float


def model() -> DenseModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=1,
        num_attention_heads=16,
        max_position_embeddings=CONTEXT,
        initializer_range=0.02,
    )
    module = LlamaForCausalLM(config).eval().requires_grad_(False)
    return DenseModel(
        ModelSource(source="random"), module, None, "bench-compress", CONTEXT, Path("random"), None
    )


def corpus() -> Corpus:
    drawn = torch.randint(0, 256, (40, CONTEXT), generator=torch.Generator().manual_seed(0))
    return Corpus(tuple(drawn), bytes=40 * (CONTEXT - 1), digest="random")


def run() -> list[Row]:
    """Return a row a method and keep ratio."""
    torch.set_num_threads(1)
    dense, rows = model(), []
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HPO_CACHE"] = directory
        profiler = Profiler(dense, corpus(), CONTEXT)
        profile = profiler.profile([PLAIN, WHITENED])  # Gram matrices among others
        for method, basis in (("svd", PLAIN), ("whitened_svd", WHITENED)):
            scratch = _scratch(profiler, basis)
            for keep in (0.3, 0.6, 0.9):
                candidate = Candidate.of({"factorise": method, "factorise.keep_ratio": keep})
                times = []
                for _ in range(REPEATS):
                    started = time.perf_counter()
                    compressed(profiler, candidate, plan_of(profile, candidate))
                    times.append(time.perf_counter() - started)
                rows.append(Row(method, keep, scratch, median(times)))
    return rows


def _scratch(profiler: Profiler, basis: SvdBasis) -> float:
    """Drop a basis and return the seconds it takes to build it again."""
    shutil.rmtree(profiler.store.directory(basis.name))
    started = time.perf_counter()
    profiler.prepare([basis])
    return time.perf_counter() - started


def main() -> None:
    print("| method | keep ratio | from scratch s | cached s | share |\n|---|---|---|---|---|")
    for r in run():
        share = r.cached_s / r.scratch_s
        print(f"| {r.method} | {r.keep_ratio} | {r.scratch_s:.2f} | {r.cached_s:.4f} | {share:.2%} |")


if __name__ == "__main__":
    main()
