"""The contract of a store, on every database: one coordinator writes a study at a time."""

from collections.abc import Callable

import pytest

from hpo.errors import LeaseLost, StoreError
from hpo.store.store import Store
from hpo.store.values import EventKind, Lease, StudyState
from tests.store.samples import NOW, begun, completed, make_front, make_study, waiting


def test_a_lease_is_taken_with_the_first_epoch_and_is_an_event(store: Store) -> None:
    store.create_study(make_study(), {}, NOW)
    assert store.holder("quick") is None
    lease = store.acquire("quick", "node-1:42", 60.0, NOW)
    assert lease == Lease("quick", "node-1:42", 1, NOW + 60)
    assert store.holder("quick") == lease
    event = store.events("quick")[-1]
    assert (event.kind, event.at) == (EventKind.LEASE, NOW)
    assert event.payload["owner"] == "node-1:42"


def test_a_held_study_is_refused_with_the_holders_name_and_the_lease_end(store: Store) -> None:
    begun(store, owner="node-1:42")
    with pytest.raises(StoreError, match=r"run by node-1:42; .*2027-01-15 08:01:00 UTC, in 20 s") as caught:
        store.acquire("quick", "node-2:7", 60.0, NOW + 40)
    assert "hpo stop quick" in caught.value.hint
    assert not isinstance(caught.value, LeaseLost)
    holder = store.holder("quick")
    assert holder is not None
    assert holder.owner == "node-1:42"


def test_an_expired_lease_is_taken_over_with_a_higher_epoch(store: Store) -> None:
    begun(store, owner="node-1:42")
    lease = store.acquire("quick", "node-2:7", 60.0, NOW + 60)
    assert lease == Lease("quick", "node-2:7", 2, NOW + 120)
    assert store.events("quick")[-1].payload["previous_owner"] == "node-1:42"


def test_an_owner_may_take_its_own_lease_again_with_a_higher_epoch(store: Store) -> None:
    first = begun(store)
    second = store.acquire("quick", "me", 60.0, NOW + 1)
    assert second.epoch == 2
    with pytest.raises(LeaseLost):
        store.renew(first, 60.0, NOW + 2)


def test_a_holder_known_to_be_dead_is_replaced_at_once(store: Store) -> None:
    begun(store, owner="node-1:42")
    with pytest.raises(StoreError, match="run by node-1:42"):
        store.acquire("quick", "node-1:43", 60.0, NOW + 1, replacing="node-1:41")
    assert store.acquire("quick", "node-1:43", 60.0, NOW + 1, replacing="node-1:42").epoch == 2


def test_renewing_moves_the_end_and_keeps_the_epoch(store: Store) -> None:
    lease = begun(store)
    renewed = store.renew(lease, 60.0, NOW + 30)
    assert renewed == Lease("quick", "me", 1, NOW + 90)
    assert store.holder("quick") == renewed
    assert store.events("quick")[-1].at == NOW


def test_a_lease_that_ran_out_still_counts_until_another_takes_it(store: Store) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(), (), NOW + 500)
    assert store.renew(lease, 60.0, NOW + 500).expires_at == NOW + 560


def test_a_released_study_is_free_at_once(store: Store) -> None:
    lease = begun(store)
    store.release(lease, NOW + 1)
    assert store.holder("quick") is None
    assert store.acquire("quick", "another", 60.0, NOW + 1).epoch == 2


_WRITES: dict[str, Callable[[Store, Lease], object]] = {
    "renew": lambda store, lease: store.renew(lease, 60.0, NOW),
    "release": lambda store, lease: store.release(lease, NOW),
    "set_state": lambda store, lease: store.set_state(lease, StudyState.FAILED, "", NOW),
    "replace_study": lambda store, lease: store.replace_study(lease, make_study(trials=99), "", NOW),
    "add_hours": lambda store, lease: store.add_hours(lease, 1.0),
    "add_trial": lambda store, lease: store.add_trial(lease, waiting(1), (), NOW),
    "save_trial": lambda store, lease: store.save_trial(lease, completed(), EventKind.COMPLETED, NOW),
    "save_front": lambda store, lease: store.save_front(lease, make_front()),
    "note": lambda store, lease: store.note(lease, EventKind.NOTE, NOW),
}


@pytest.mark.parametrize("write", _WRITES.values(), ids=_WRITES.keys())
def test_who_lost_the_lease_can_write_nothing(store: Store, write: Callable[[Store, Lease], object]) -> None:
    old = begun(store, owner="node-1:42")
    store.add_trial(old, waiting(0), (), NOW)
    store.acquire("quick", "node-2:7", 60.0, NOW + 61)
    before = _everything(store)
    with pytest.raises(LeaseLost, match=r"node-1:42 \(epoch 1\).*node-2:7 holds it now \(epoch 2\)"):
        write(store, old)
    assert _everything(store) == before


@pytest.mark.parametrize("write", _WRITES.values(), ids=_WRITES.keys())
def test_a_lease_given_back_writes_nothing(store: Store, write: Callable[[Store, Lease], object]) -> None:
    lease = begun(store)
    store.add_trial(lease, waiting(0), (), NOW)
    store.release(lease, NOW)
    before = _everything(store)
    with pytest.raises(LeaseLost, match="given back"):
        write(store, lease)
    assert _everything(store) == before


def test_the_lease_of_a_deleted_study_writes_nothing_to_its_successor(store: Store) -> None:
    lease = begun(store, owner="old")
    store.release(lease, NOW)
    store.delete_study("quick")
    with pytest.raises(LeaseLost, match="no longer in the store"):
        store.add_hours(lease, 1.0)
    begun(store, owner="new")
    with pytest.raises(LeaseLost, match="new holds it now"):
        store.add_hours(lease, 1.0)


def _everything(store: Store) -> tuple[object, ...]:
    name = "quick"
    parts = (store.study, store.trials, store.fronts, store.events, store.holder)
    return tuple(part(name) for part in parts)
