"""A study whose trials have a story: healed, born of one another, lost and tried again, failed at length."""

from pathlib import Path

from hpo.healing_curve import HealingCurve
from hpo.metric import METRICS
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, Lease
from hpo.study import Study
from hpo.trial import Cause, LayerRecord, StageTime, Trial
from tests.dashboards.synthetic import ENVIRONMENT, START, answers, asked, candidate, measured, study_named

NAME = "storied"
NASTY = '<img src=x onerror=alert(1)> "it\'s" 🙂 & so on: ' + "the kernel said no, " * 13
"""About 300 characters that want to be markup."""
LAYERS = ("q_proj", "k_proj", "mlp.up_proj", "mlp.down_proj")
PLAIN = HealingCurve(
    "cross_entropy", tuple((s, 4.0 - s / 40) for s in range(1, 61)), ((0, 4.1), (25, 3.4), (60, 2.6))
)
TAUGHT = HealingCurve(
    "distil", tuple((s, 1.5 / s) for s in range(1, 31)), ((0, 3.5), (25, 3.55), (30, 3.625))
)
DENSE, PARENT, CHILD, MOVED, STOPPED, FAILED, RUNNING, WAITING = range(8)


def layers(kind: str, share: float) -> tuple[LayerRecord, ...]:
    """Return what becomes of four layers of 1,000 weights in two bytes each."""
    size = {"low_rank": "rank 34", "packed": "4 bits, groups of 64", "sparse": "50 % zero"}.get(kind, "")
    kept = int(1000 * share)
    width = 0.5 if kind == "packed" else 2
    return tuple(
        LayerRecord(f"model.layers.0.{name}", kind, size, kept, 1000, int(kept * width)) for name in LAYERS
    )


def write_story(path: Path) -> str:
    """Write the study to a store at `path`; return the store's address."""
    url = f"sqlite:///{path}"
    with Store.open(url) as store:
        store.create_study(study_named(NAME), ENVIRONMENT | {"warm_start": "3 trials of earlier"}, START)
        lease = store.acquire(NAME, "test", 600.0, START)
        _add(store, lease, asked(DENSE, Candidate(), "anchor:dense"), layers("dense", 1.0))
        _finish(store, lease, asked(DENSE, Candidate(), "anchor:dense"), 1.0)
        _parent(store, lease)
        _child(store, lease)
        moved = asked(MOVED, candidate(0.52, "mpo"), f"refine:{CHILD}")
        _add(store, lease, moved, layers("packed", 1.0))
        _finish(store, lease, moved, 0.52)
        _ended(store, lease)
    return url


def _add(store: Store, lease: Lease, trial: Trial, plan: tuple[LayerRecord, ...]) -> None:
    store.add_trial(lease, trial, plan, trial.created_at)


def _finish(store: Store, lease: Lease, trial: Trial, keep: float) -> None:
    started = trial.started("worker-1", trial.created_at + 1)
    store.save_trial(lease, started, EventKind.STARTED, started.created_at + 1, {"worker": "worker-1"})
    done = started.advanced(StageTime("measure", 5.5, 80.0), answers(keep)).completed(trial.created_at + 30)
    store.save_trial(lease, done, EventKind.COMPLETED, done.created_at + 30)


def _parent(store: Store, lease: Lease) -> None:
    """A trial that lost its worker, was run again, and healed in two parts."""
    trial = asked(PARENT, candidate(0.5), "bayesian")
    _add(store, lease, trial, layers("low_rank", 0.5))
    at = trial.created_at
    first = trial.started("worker-1", at + 1)
    store.save_trial(lease, first, EventKind.STARTED, at + 1, {"worker": "worker-1"})
    lost = {"worker": "worker-1", "why": "its process died", "seconds": 12.5}
    store.note(lease, EventKind.LOST, at + 14, PARENT, 1, lost)
    again = first.requeued()
    store.save_trial(lease, again, EventKind.REQUEUED, at + 14, {"why": "its process died"})
    running = again.started("worker-2", at + 15)
    store.save_trial(lease, running, EventKind.STARTED, at + 15, {"worker": "worker-2"})
    healed = {"heal_nll_before": 4.1, "heal_steps": 60.0, "heal_kept": 1.0, "heal_nll_after": 2.6}
    for stage, seconds, curve in (("compress", 2.0, None), ("heal", 6.0, None), ("heal_on", 12.0, PLAIN)):
        running = running.advanced(StageTime(stage, seconds, 10 * seconds), (), healed if curve else {})
        payload = {"stage": stage, "seconds": seconds, "joules": 10 * seconds}
        told = {"curve": curve.to_mapping()} if curve else {}
        store.save_trial(lease, running, EventKind.STAGE_DONE, at + 20, payload | told)
    done = running.advanced(StageTime("measure", 5.0), answers(0.5)).completed(at + 50)
    store.save_trial(lease, done, EventKind.COMPLETED, at + 50)


def _child(store: Store, lease: Lease) -> None:
    """A trial whose healing started from the parent's factors and learnt from the dense model."""
    trial = asked(CHILD, candidate(0.45), "bayesian")
    _add(store, lease, trial, layers("sparse", 0.45))
    at = trial.created_at
    running = trial.started("worker-1", at + 1)
    store.save_trial(lease, running, EventKind.STARTED, at + 1, {"worker": "worker-1"})
    notes = {"heal_parent": float(PARENT), "heal_kept": 0.0, "heal_steps": 30.0}
    running = running.advanced(StageTime("heal", 7.0), (), notes)
    payload = {"stage": "heal", "seconds": 7.0, "joules": None, "curve": TAUGHT.to_mapping()}
    store.save_trial(lease, running, EventKind.STAGE_DONE, at + 9, payload)
    done = running.advanced(StageTime("measure", 5.0), answers(0.45)).completed(at + 20)
    store.save_trial(lease, done, EventKind.COMPLETED, at + 20)


def _ended(store: Store, lease: Lease) -> None:
    """Trials without an answer: stopped, failed, running and waiting."""
    for number in (STOPPED, FAILED, RUNNING, WAITING):
        trial = asked(number, candidate(0.3 + number / 100), "bayesian")
        _add(store, lease, trial, () if number == FAILED else layers("low_rank", 0.3))
        if number == WAITING:
            continue
        at = trial.created_at
        running = trial.started("worker-2", at + 1)
        store.save_trial(lease, running, EventKind.STARTED, at + 1, {"worker": "worker-2"})
        if number == STOPPED:
            stopped = running.advanced(StageTime("heal", 3.0)).stopped("it is dominated", at + 5)
            payload = {"after": "heal", "curve": PLAIN.to_mapping()}
            store.save_trial(lease, stopped, EventKind.STOPPED, at + 5, payload)
        elif number == FAILED:
            failed = running.failed(Cause.ERROR, NASTY, at + 5)
            store.save_trial(lease, failed, EventKind.FAILED, at + 5)


def write_wide(path: Path) -> str:
    """Write a study of twelve objectives and three trials to a store; return the store's address."""
    document = study_named("wide").to_mapping()
    metrics = list(METRICS)[:12]
    study = Study.from_mapping({**document, "objectives": [{"metric": name} for name in metrics]})
    url = f"sqlite:///{path}"
    with Store.open(url) as store:
        store.create_study(study, ENVIRONMENT, START)
        lease = store.acquire("wide", "test", 600.0, START)
        for number in range(3):
            trial = asked(number, candidate(0.4 + number / 10), "sobol")
            _add(store, lease, trial, ())
            found = [
                measured(name, 1.0 + (number if place % 2 else -number / 8))
                for place, name in enumerate(metrics)
            ]
            done = trial.started("w", START).advanced(StageTime("measure", 1.0), found).completed(START + 1)
            store.save_trial(lease, done, EventKind.COMPLETED, START)
    return url
