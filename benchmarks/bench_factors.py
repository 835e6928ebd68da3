"""What do profile and factors of a model cost once, on disk, and in a second process?

8 layers of 2048 x 5632 (out x in) and, for comparison, 8 of 5632 x 2048, random weights, float32, one thread.
*Profile* is the calibration text through the layers, with the Gram matrices that whitening needs; *factors*
makes the plain and the whitened basis. Against them: one float64 eigendecomposition of 2048 x 2048 for each
layer and basis, alone. Seconds are of the processor, so that neighbours show less. The second process maps
every factor of both bases, as the first does, and reads them through; its private memory is looked at before
and after.

    python -m benchmarks.bench_factors
"""

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from torch import Tensor, nn

from hpo.compress.bases import PLAIN, WHITENED
from hpo.compress.factors import FactorStore
from hpo.compress.grams import is_wide
from hpo.compress.profiling import Profiler
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from hpo.study import ModelSource

LAYERS = 8
WIDTH, INNER = 2048, 5632
CONTEXT, SEQUENCES = 256, 16


class Stack(nn.Module):
    """Linear layers in numbered blocks, each fed with the same correlated inputs; a model to a profiler."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, in_features)
        with torch.no_grad():
            self.embed.weight.mul_(torch.logspace(0, -2, in_features))
        blocks = [nn.Linear(in_features, out_features, bias=False) for _ in range(LAYERS)]
        self.blocks = nn.ModuleList(nn.ModuleDict({"mlp": block}) for block in blocks)

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        x = self.embed(input_ids)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 0.01
        for k, block in enumerate(self.blocks):
            y = block.get_submodule("mlp")(x + noise * k)
        return SimpleNamespace(logits=y)

    @property
    def weight(self) -> Tensor:
        return self.blocks[0].get_submodule("mlp").get_parameter("weight")

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> None:
        return None


@dataclass(frozen=True)
class Row:
    shape: str
    eigen_s: float
    """CPU seconds of the eigendecompositions alone, both bases."""
    profile_s: float
    factors_s: float
    stored: float
    """Bytes on disk over those of the dense layers, a basis."""
    private: float
    """Growth of a second process's private memory, over the size of the factors."""


def run() -> list[Row]:
    """Return a row a shape."""
    torch.set_num_threads(1)
    return [_row(WIDTH, INNER), _row(INNER, WIDTH)]


def _row(out_features: int, in_features: int) -> Row:
    torch.manual_seed(0)
    stack = Stack(out_features, in_features).eval().requires_grad_(False)
    dense = DenseModel(
        ModelSource(source="stack"), stack, None, f"stack-{out_features}", CONTEXT, Path(), None
    )
    drawn = torch.randint(0, 256, (SEQUENCES, CONTEXT), generator=torch.Generator().manual_seed(0))
    corpus = Corpus(tuple(drawn), bytes=SEQUENCES * (CONTEXT - 1), digest="random")
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HPO_CACHE"] = directory
        profiler = Profiler(dense, corpus, CONTEXT)
        started = time.process_time()
        layers = profiler.architecture.layers
        whitening = profiler.statistics
        _ = whitening.outputs(layers[0]) if is_wide(stack.weight) else whitening.narrow_gram(layers[0])
        profile_s = time.process_time() - started
        started = time.process_time()
        profiler.prepare([PLAIN, WHITENED])
        factors_s = time.process_time() - started
        files = [f for basis in (PLAIN, WHITENED) for f in profiler.store.directory(basis.name).iterdir()]
        size = sum(f.stat().st_size for f in files if f.suffix == ".safetensors")
        dense_bytes = 4 * sum(layer.parameters for layer in layers)
        private = _private_growth(profiler.store.key, [layer.name for layer in layers])
    shape = f"{LAYERS} of {out_features} x {in_features}"
    return Row(shape, _eigen_s(), profile_s, factors_s, size / 2 / dense_bytes, private / size)


def _eigen_s() -> float:
    matrix = torch.randn(WIDTH, WIDTH + 64, dtype=torch.float64)
    square = matrix @ matrix.T
    started = time.process_time()
    for _ in range(4):
        torch.linalg.eigh(square)
    return (time.process_time() - started) / 4 * 2 * LAYERS


def _private_growth(key: str, layers: list[str]) -> int:
    """Return how many bytes a fresh process grows by when it reads every factor, as this one has them mapped.

    Of a file that one process alone maps, the pages count as private to it.
    """
    held = _read(key, layers)
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[int] = context.Queue()
    process = context.Process(target=_report, args=(key, layers, queue))
    process.start()
    grown = queue.get(timeout=300)
    process.join()
    del held
    return grown


def _report(key: str, layers: list[str], queue: "multiprocessing.Queue[int]") -> None:
    torch.set_num_threads(1)
    _read(key, layers[:1])  # what torch itself needs at its first load and sum
    before = psutil.Process().memory_full_info().uss
    held = _read(key, layers)
    queue.put(psutil.Process().memory_full_info().uss - before)
    del held


def _read(key: str, layers: list[str]) -> list[dict[str, Tensor]]:
    """Map every factor and touch every page; return the tensors, which keep the maps alive."""
    store = FactorStore(key)
    kept = [store.load(basis.name, layer) for basis in (PLAIN, WHITENED) for layer in layers]
    for tensors in kept:
        for tensor in tensors.values():
            tensor.sum()
    return kept


def main() -> None:
    print("| layers | eigh alone s | profile s | factors s | together | on disk, of dense | private memory |")
    print("|---|---|---|---|---|---|---|")
    for r in run():
        ratio = (r.profile_s + r.factors_s) / r.eigen_s
        print(
            f"| {r.shape} | {r.eigen_s:.1f} | {r.profile_s:.1f} | {r.factors_s:.1f} "
            f"| {ratio:.2f} x eigh | {r.stored:.3f} | {r.private:.1%} |"
        )


if __name__ == "__main__":
    main()
