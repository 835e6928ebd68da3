"""Does the measuring lock keep timings true while neighbours compute?

A Llama of 2 layers x 128 is timed (batch 1, context 128, one thread): alone in five processes one
after another, then beside 1 and 2 neighbours that train without pause, with the measuring lock and
without it. Takes about two minutes on two cores; what else runs on the machine shows in the figures.

    python -m benchmarks.bench_measuring_lock
"""

import multiprocessing
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import mean, median, stdev

import torch
from torch import nn

from hpo.measure.device import fingerprint
from hpo.measure.latency import LatencyProbe
from hpo.measure.probe import Cost, Subject
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus

CONTEXT = 128
ALONE = "alone"
METRICS = ("prefill_latency", "decode_latency", "prefill_latency_ratio")
_spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Row:
    """Timings of one metric taken in one condition, in the metric's unit."""

    condition: str
    metric: str
    values: tuple[float, ...]
    noisy: int
    """How many of them the probe itself flagged as noisy."""

    @property
    def variation(self) -> float:
        return stdev(self.values) / mean(self.values)


def run(processes: int = 5, timings: int = 5, neighbours: tuple[int, ...] = (0, 1, 2)) -> list[Row]:
    """Return one row a metric and condition."""
    alone = [timing for _ in range(processes) for timing in _in_new_process(1)]
    rows = _rows(f"{ALONE}, {processes} processes", alone)
    with tempfile.TemporaryDirectory() as temporary:
        for count in neighbours:
            for lock in (Path(temporary) / "lock", None) if count else (None,):
                with _neighbours(count, lock):
                    found = _in_new_process(timings, lock)
                words = (
                    f"{count} beside it, {'lock' if lock else 'no lock'}" if count else f"{ALONE}, 1 process"
                )
                rows += _rows(words, found)
    return rows


def main() -> None:
    """Print a markdown table; deviations are from the lowest timing alone, a ratio's from 1."""
    torch.set_num_threads(1)
    rows = run()
    alone = [row for row in rows if row.condition.startswith(ALONE)]
    quiet = {metric: min(min(row.values) for row in alone if row.metric == metric) for metric in METRICS}
    quiet["prefill_latency_ratio"] = 1.0
    print(f"{fingerprint('cpu', 1)}\n")
    print("| condition | metric | median | off | worst off | CV | flagged noisy |")
    print("|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: METRICS.index(row.metric)):
        off = [value / quiet[row.metric] - 1 for value in row.values]
        print(
            f"| {row.condition} | {row.metric} | {median(row.values):.3f} | {median(off):+.1%} "
            f"| {max(off, key=abs):+.1%} | {row.variation:.1%} | {row.noisy} of {len(row.values)} |"
        )


Found = list[dict[str, tuple[float, bool]]]
"""For each timing, by metric: the value, and whether its note calls it noisy."""


def _rows(condition: str, found: Found) -> list[Row]:
    return [
        Row(
            condition,
            metric,
            tuple(timing[metric][0] for timing in found),
            sum(timing[metric][1] for timing in found),
        )
        for metric in METRICS
    ]


def _in_new_process(timings: int, lock: Path | None = None) -> Found:
    with _spawn.Pool(1) as pool:
        return pool.apply(_take, (timings, lock))


def _take(timings: int, lock: Path | None) -> Found:
    torch.set_num_threads(1)
    model = _llama().eval()
    held = sum(p.numel() for p in model.parameters())
    subject = Subject(
        model=model,
        dense=model,
        cost=Cost(held, 4 * held, 1),
        evaluation=Corpus((torch.arange(CONTEXT),), CONTEXT, "unused"),
        context=CONTEXT,
        device="cpu",
    )
    measuring = QuietNode(lock).measuring if lock else nullcontext
    found = []
    for _ in range(timings):
        with measuring():
            measurements = LatencyProbe().measure(subject, METRICS)
        found.append({m.metric: (m.value, "noisy" in m.note) for m in measurements})
    return found


@contextmanager
def _neighbours(count: int, lock: Path | None) -> Iterator[None]:
    """Let `count` processes train meanwhile; go on once each has made its first step."""
    enough, begun = _spawn.Event(), [_spawn.Event() for _ in range(count)]
    workers = [_spawn.Process(target=_train, args=(enough, one, lock)) for one in begun]
    for worker in workers:
        worker.start()
    try:
        for one in begun:
            one.wait()
        yield
    finally:
        enough.set()
        for worker in workers:
            worker.join()


def _train(enough: Event, begun: Event, lock: Path | None) -> None:
    torch.set_num_threads(1)
    model = _llama()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(0, 256, (4, CONTEXT))
    working = QuietNode(lock).working if lock else nullcontext
    parent = multiprocessing.parent_process()
    while not enough.is_set() and parent is not None and parent.is_alive():
        with working():
            model(input_ids=ids, labels=ids).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        begun.set()


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        vocab_size=256,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
    )
    model: nn.Module = LlamaForCausalLM(config)
    return model


if __name__ == "__main__":
    main()
