"""Figures of a running study for Prometheus, over HTTP, on request.

What the coordinator tells (`hear`, `asked`) is counted here; how things stand is asked of the store at each
scrape, by a few small queries. The page holds no candidate, no address and no secret, but it has no token
either: it is for this machine unless a person gives it another host.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

from hpo.errors import HpoError, UsageError
from hpo.store.failures import is_passing, is_unconnected
from hpo.store.spending import Spent, Work, gpus_of, spent_of
from hpo.store.store import Store
from hpo.store.values import TRIAL_LEASE_S, EventKind, StudyRecord, StudySummary
from hpo.study import Study
from hpo.trial import Trial, TrialState
from hpo.watch.happened import Happened
from hpo.watch.logs import ASKED

_BUCKETS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""Seconds of a stage."""
_SCRAPE_S = 2.0
"""For how long a scrape waits for the one before it."""
_ASK_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_UNITS = {"trials": "trials", "h": "hours", "GPU-hours": "gpu_hours", "J": "joules"}


class StudyMetrics:
    """Counts what a coordinator tells it, and reads where the study stands when it is scraped.

    All counters begin with this process but those of lost workers and retries, which the store knows.
    """

    def __init__(
        self, store: Store, study: Study, lease_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        """`lease_s`: for how many seconds the coordinator renews its lease at a time."""
        self.registry = CollectorRegistry()
        self._standing = _FromStore(store, study, lease_s, clock)
        self._seen: dict[int, tuple[int, int]] = {}
        self._lock = threading.Lock()
        own: dict[str, Any] = {"registry": self.registry}
        self._asked = Counter("hpo_trials_asked", "Trials begun to exist.", **own)
        self._over = Counter("hpo_trials_over", "Trials that are over.", ("state", "cause"), **own)
        self._stages = Histogram(
            "hpo_stage_seconds", "Time a stage took.", ("stage",), buckets=_BUCKETS, **own
        )
        self._asks = Histogram(
            "hpo_ask_seconds", "Time the search took to propose.", buckets=_ASK_BUCKETS, **own
        )
        self._proposed = Counter("hpo_proposals", "Candidates that asks have brought.", **own)
        self._trouble = Counter("hpo_store_errors", "Errors of the database.", ("kind",), **own)
        self._up = Gauge("hpo_coordinator_started_time_seconds", "When this coordinator began.", **own)
        self._up.set(clock())
        self.registry.register(self._standing)

    def hear(self, kind: EventKind, trial: Trial) -> None:
        """Be told what has become of a trial, as a listener of the coordinator."""
        if kind is EventKind.ASKED:
            self._asked.inc()
        with self._lock:
            attempt, known = self._seen.get(trial.number, (trial.attempt, 0))
            known = known if attempt == trial.attempt else 0
            self._seen[trial.number] = (trial.attempt, len(trial.stages))
        for stage in trial.stages[known:]:
            self._stages.labels(stage.stage).observe(stage.seconds)
        self._standing.add(Work.of(trial.stages[known:]))
        if trial.state.is_final and kind in (EventKind.COMPLETED, EventKind.STOPPED, EventKind.FAILED):
            self._over.labels(str(trial.state), str(trial.cause or "")).inc()
            self._seen.pop(trial.number, None)

    def asked(self, count: int, seconds: float) -> None:
        """Be told of an ask: how many candidates it brought, and how long it took."""
        self._asks.observe(seconds)
        self._proposed.inc(count)

    def database_failed(self, context: ExceptionContext) -> None:
        """Be told by SQLAlchemy of an error; what passes by itself is tried again."""
        error = context.sqlalchemy_exception
        passing = error is not None and (is_passing(error) or is_unconnected(error))
        self._trouble.labels("passing" if passing else "lasting").inc()


class _Ear(logging.Handler):
    """Hears of asks through the log, where they are told with their figures."""

    def __init__(self, metrics: StudyMetrics) -> None:
        super().__init__(logging.INFO)
        self._metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", None) == ASKED:
            figures = vars(record)
            self._metrics.asked(int(figures["proposals"]), float(figures["seconds"]))


@contextmanager
def _hearing(metrics: StudyMetrics) -> Iterator[None]:
    """Tell the figures of what the search and the database do meanwhile."""
    ours, ear = logging.getLogger("hpo"), _Ear(metrics)
    level = ours.level
    ours.setLevel(min(level or logging.INFO, logging.INFO))
    ours.addHandler(ear)
    event.listen(Engine, "handle_error", metrics.database_failed)
    try:
        yield
    finally:
        event.remove(Engine, "handle_error", metrics.database_failed)
        ours.removeHandler(ear)
        ours.setLevel(level)


class _FromStore(Collector):
    """What only the store knows, read at each scrape. A store that is away leaves these figures out."""

    def __init__(self, store: Store, study: Study, lease_s: float, clock: Callable[[], float]) -> None:
        self._store, self._study, self._lease_s, self._clock = store, study, lease_s, clock
        self._scraping, self._adding = threading.Lock(), threading.Lock()
        self._happened = Happened()
        self._done, self._since = Work(), clock()
        self._before: Work | None = None
        """By workers, less what is `_done`: so the sum is all there is. None until it was read."""
        self._lost_before = 0.0

    def add(self, work: Work) -> None:
        """Count work that was heard of. Never waits for a scrape: the coordinator calls it."""
        with self._adding:
            self._done += work

    def describe(self) -> list[Metric]:
        """Say nothing beforehand: registering must not ask the store."""
        return []

    def collect(self) -> Iterator[Metric]:
        found: list[Metric] = []
        if self._scraping.acquire(timeout=_SCRAPE_S):  # an earlier one may be waiting for the database
            try:
                with suppress(HpoError):  # not created yet, or the database is away
                    found = list(self._read())
            finally:
                self._scraping.release()
        yield from (*found, _gauge("hpo_store_up", "Whether the store could be read for this.", bool(found)))

    def _read(self) -> Iterator[Metric]:
        name, now = self._study.name, self._clock()
        record = self._store.study(name)
        summary = next(s for s in self._store.studies() if s.name == name)
        self._catch_up(record)
        yield from self._trials(summary)
        yield from self._budget(record, summary)
        yield from self._front(summary)
        yield from self._workers(now, summary)
        if (holder := self._store.holder(name)) is not None:
            age = max(now - (holder.expires_at - self._lease_s), 0.0)
            yield _gauge("hpo_coordinator_heartbeat_age_seconds", "Since the lease was last renewed.", age)
            yield _gauge("hpo_coordinator_epoch", "Grows with each coordinator of the study.", holder.epoch)

    def _catch_up(self, record: StudyRecord) -> None:
        """Read the events that are new; the first time also what was spent before this process."""
        name = self._study.name
        if self._before is None:
            done = self._done
            trials, newest = self._store.trials_since(name, 0)
            self._happened.read(self._store, name, newest)
            self._lost_before = self._happened.lost_seconds
            self._before = spent_of(record, trials, self._store.lost_work(name)).work - done
        else:
            self._happened.read(self._store, name, _ANY)

    def _trials(self, summary: StudySummary) -> Iterator[Metric]:
        states = GaugeMetricFamily("hpo_trials", "Trials of the study by state.", labels=("state",))
        for state in TrialState:
            states.add_metric([str(state)], summary.counts.get(str(state), 0))
        yield states
        for name, text, counts in (
            ("hpo_failed_trials", "Trials that have failed, by cause.", summary.causes),
            ("hpo_retries", "Trials put back into the queue, by cause.", self._happened.retries),
            ("hpo_lost_attempts", "Attempts that ended with their worker, by cause.", self._happened.lost),
        ):
            family = CounterMetricFamily(name, text, labels=("cause",))
            for cause, count in sorted(counts.items()):
                family.add_metric([cause], count)
            yield family

    def _budget(self, record: StudyRecord, summary: StudySummary) -> Iterator[Metric]:
        assert self._before is not None
        lost = Work.lost(self._happened.lost_seconds - self._lost_before)
        gpus = gpus_of(record.environment.get("device", ""), record.study.run.gpus_per_worker)
        spent = Spent(sum(summary.counts.values()), record.hours, self._before + self._done + lost, gpus)
        used = GaugeMetricFamily("hpo_budget_used", "What is spent of each budget given.", labels=("unit",))
        most = GaugeMetricFamily("hpo_budget_limit", "How much each budget is.", labels=("unit",))
        for use in spent.uses(record.study.budget):
            used.add_metric([_UNITS[use.unit]], use.spent)
            most.add_metric([_UNITS[use.unit]], use.of)
        yield from (used, most)

    def _front(self, summary: StudySummary) -> Iterator[Metric]:
        yield _gauge("hpo_front_members", "Trials on the front.", summary.front_size)
        if summary.hypervolume is not None:
            yield _gauge(
                "hpo_hypervolume", "Of the front, as a share of the reference box.", summary.hypervolume
            )

    def _workers(self, now: float, summary: StudySummary) -> Iterator[Metric]:
        workers = self._study.run.workers
        yield _gauge("hpo_workers", "Workers the study asks for.", workers)
        yield _gauge("hpo_workers_busy", "Workers that have a trial.", summary.workers)
        elapsed = max(now - self._since, 1e-9) * workers
        busy = CounterMetricFamily("hpo_worker_busy_seconds", "Time of stages that are done.")
        busy.add_metric([], self._done.seconds)
        yield busy
        share = min(self._done.seconds / elapsed, 1.0)
        yield _gauge("hpo_worker_busy_share", "Share of the workers' time in stages that are done.", share)
        silent = GaugeMetricFamily(
            "hpo_worker_silent_seconds", "Since a busy worker was heard of.", labels=("worker",)
        )
        for lease in self._store.trial_leases(self._study.name):
            if lease.until is not None:
                silent.add_metric([lease.worker], max(now - (lease.until - TRIAL_LEASE_S), 0.0))
        yield silent


_ANY = 2**63 - 1
"""An event no study will have."""


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], float(value))
    return family


@contextmanager
def served(metrics: StudyMetrics, port: int, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the figures until the end of the block; yield the address they are at.

    Args:
        port: 0 takes any that is free.
        host: whoever reaches it can read the figures; the default is this machine alone.

    Raises:
        UsageError: nothing can listen there.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "no such port"
        raise UsageError(
            f"metrics cannot be served at {host}:{port}: {why}",
            "choose another --metrics-port or --metrics-host",
        ) from None
    try:
        with _hearing(metrics):
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
