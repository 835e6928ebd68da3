"""A study that was measured on two devices, seen from each."""

import pytest

from hpo.deliver.by_device import front_of, named
from hpo.errors import UsageError
from hpo.metric import METRICS, Source
from hpo.store.by_device import MeasuredDevice
from hpo.store.store import Store
from hpo.store.values import EventKind, Lease
from hpo.trial import Measurement, Objective, StageTime, Trial, TrialState
from tests.store.samples import NOW, begun, waiting

OLD, NEW = "cpu: old", "cuda: new"
OBJECTIVES = (Objective(metric="perplexity"), Objective(metric="prefill_latency"))


def found(metric: str, value: float, device: str) -> Measurement:
    return Measurement(metric, value, METRICS[metric].unit, Source.MEASURED, device=device)


def stored(store: Store, lease: Lease, trial: Trial, kind: EventKind) -> Trial:
    assert store.save_trial(lease, trial, kind, NOW)
    return trial


def measured_on_both(store: Store) -> None:
    """Store two trials measured on the old device; the first also on the new one, the second set aside."""
    lease = begun(store)
    for number, latency in ((0, 9.0), (1, 7.0)):
        store.add_trial(lease, waiting(number), (), NOW)
        running = stored(store, lease, waiting(number).started("w", NOW), EventKind.STARTED)
        figures = (found("perplexity", 5.0 + number, OLD), found("prefill_latency", latency, OLD))
        done = running.advanced(StageTime("time", 1.0), figures).completed(NOW + 1)
        stored(store, lease, done, EventKind.COMPLETED)
        if number == 0:
            again = stored(store, lease, done.reopened(figures[:1]), EventKind.REOPENED)
            again = stored(store, lease, again.started("w", NOW + 2), EventKind.STARTED)
            again = again.advanced(StageTime("time", 1.0), [found("prefill_latency", 2.0, NEW)])
            stored(store, lease, again.completed(NOW + 3), EventKind.COMPLETED)
        else:
            stored(store, lease, done.revised(figures[:1]), EventKind.REVISED)


def test_devices_are_listed_with_their_trials_the_first_one_first(store: Store) -> None:
    begun(store, "empty", "other")
    assert store.devices("empty") == ()
    measured_on_both(store)
    assert store.devices("quick") == (MeasuredDevice(OLD, 2), MeasuredDevice(NEW, 1))


def test_each_device_has_its_own_figures_and_what_is_the_same_everywhere(store: Store) -> None:
    measured_on_both(store)
    old, new = store.trials_on("quick", OLD), store.trials_on("quick", NEW)
    assert [t.value("prefill_latency") for t in old] == [9.0, 7.0]
    assert [t.value("prefill_latency") for t in new] == [2.0, None]
    assert [t.value("perplexity") for t in old] == [t.value("perplexity") for t in new] == [5.0, 6.0]
    assert front_of(OBJECTIVES, old).members == (0, 1)
    assert front_of(OBJECTIVES, new).members == (0,)


def test_a_trial_that_is_being_measured_again_is_complete_where_it_was(store: Store) -> None:
    measured_on_both(store)
    lease = store.acquire("quick", "me", 60.0, NOW)
    second = store.trial("quick", 1)
    stored(store, lease, second.reopened(second.measurements), EventKind.REOPENED)
    assert store.trial("quick", 1).state is TrialState.WAITING
    (_, old), (_, new) = store.trials_on("quick", OLD), store.trials_on("quick", NEW)
    assert (old.state, new.state) == (TrialState.COMPLETED, TrialState.WAITING)
    assert (old.value("perplexity"), old.value("prefill_latency")) == (6.0, 7.0)


def test_a_device_is_named_by_a_part_of_its_fingerprint() -> None:
    there = (MeasuredDevice(OLD, 2), MeasuredDevice(NEW, 1))
    assert named(there, "CUDA").name == NEW
    with pytest.raises(UsageError, match=r"no device has 'tpu'(?s:.*)cpu: old \(2 trials\); cuda: new"):
        named(there, "tpu")
    with pytest.raises(UsageError, match="2 devices have ': '"):
        named(there, ": ")
