"""A study of 30 trials as a store holds it halfway: anchors, failures, a limit, modelled energy."""

import math
from pathlib import Path

import numpy as np

from hpo.metric import METRICS, Source
from hpo.problem import frame, losses, on_front
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.store.store import Store
from hpo.store.values import EventKind, Front, Lease, StudyState
from hpo.study import Study
from hpo.trial import Cause, LayerRecord, Measurement, StageTime, Trial

START = 1_790_000_000.0
DEVICE = "cpu:test-machine"
DENSE_PARAMETERS = 434_816
LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj")


def study_named(name: str, question: str = "How small can it get?") -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": name,
            "question": question,
            "model": "reference",
            "objectives": [
                {"metric": "perplexity", "limit": {"ratio_to_dense": 3.0}},
                {"metric": "prefill_latency"},
                {"metric": "weight_memory"},
                {"metric": "energy", "allow_modelled": True},
            ],
            "space": {
                "factorise": {"type": "choice", "choices": ["svd", "mpo"]},
                "factorise.keep_ratio": {"type": "float", "low": 0.1, "high": 1.0},
            },
            "budget": {"trials": 40},
        }
    )


def measured(metric: str, value: float, spread: float = 0.0, source: Source | None = None) -> Measurement:
    exact = metric == "weight_memory"
    kind = source or (Source.EXACT if exact else Source.MEASURED)
    repeats, device = (1, "") if exact else (5, DEVICE)
    return Measurement(metric, value, METRICS[metric].unit, kind, spread, repeats, device)


def answers(keep: float, wobble: float = 0.0) -> tuple[Measurement, ...]:
    """Return what a trial that keeps this share of the weights would measure."""
    return (
        measured("perplexity", 4.7 * math.exp(1.4 * (1 - keep) ** 2) * (1 + wobble), 0.04),
        measured("prefill_latency", 2.0 + 3.0 * keep, 0.08),
        measured("weight_memory", 4 * DENSE_PARAMETERS * keep),
        measured("energy", 0.4 + 1.1 * keep * (1 + wobble), source=Source.MODELLED),
    )


def plan(keep: float) -> tuple[LayerRecord, ...]:
    kinds = ("low_rank", "mpo", "dense")
    return tuple(
        LayerRecord(
            layer, kind, "" if kind == "dense" else "rank 34", int(45_056 * k), 45_056, int(180_224 * k)
        )
        for layer, kind, k in zip(LAYERS, kinds, (keep, keep / 2, 1.0), strict=True)
    )


def candidate(keep: float, method: str = "svd") -> Candidate:
    return Candidate.of({"factorise": method, "factorise.keep_ratio": keep})


def asked(number: int, what: Candidate, origin: str) -> Trial:
    return Trial(number, what, origin, plan_hash=f"{number:04d}", created_at=START + 60 * number)


def run(trial: Trial, found: tuple[Measurement, ...]) -> Trial:
    started = trial.started("worker-1", trial.created_at + 1)
    compressed = started.advanced(StageTime("compress", 0.5))
    return compressed.advanced(StageTime("measure", 5.5), found, {"nll_before_healing": 1.9})


def completed(trial: Trial, found: tuple[Measurement, ...]) -> Trial:
    return run(trial, found).completed(trial.created_at + 30)


def trials() -> tuple[Trial, ...]:
    """Return 30 trials: 3 anchors, 21 searched ones, 3 failed, 1 stopped, 1 running, 1 waiting."""
    made = [
        completed(asked(0, Candidate(), "anchor:dense"), answers(1.0)),
        completed(asked(1, candidate(0.5), "anchor:svd"), answers(0.5, 0.3)),
        completed(asked(2, candidate(0.1), "anchor:smallest"), answers(0.02, 1.0)),
    ]
    random = np.random.default_rng(0)
    for number in range(3, 24):
        keep = float(random.uniform(0.15, 0.98))
        wobble = float(abs(random.normal(0, 0.08)))
        made.append(
            completed(
                asked(number, candidate(keep, "mpo" if number % 3 else "svd"), "bayesian"),
                answers(keep, wobble),
            )
        )
    return (*made, *_unfinished(24))


def _unfinished(first: int) -> tuple[Trial, ...]:
    at = [asked(first + i, candidate(0.3 + i / 50), "bayesian") for i in range(6)]
    failed = (
        (at[0], Cause.OUT_OF_MEMORY, "needs 3.1 GiB, 2.0 GiB free"),
        (at[1], Cause.OUT_OF_MEMORY, "needs 2.9 GiB, 2.0 GiB free"),
        (at[2], Cause.NOT_A_NUMBER, "the loss became NaN at step 7"),
    )
    return (
        *(
            t.started("worker-2", t.created_at).failed(cause, why, t.created_at + 9)
            for t, cause, why in failed
        ),
        run(at[3], ()).stopped("its optimistic bound is dominated", at[3].created_at + 8),
        at[4].started("worker-1", at[4].created_at + 1).advanced(StageTime("compress", 0.5)),
        at[5],
    )


ENVIRONMENT = {"python": "3.11.7", "torch": "2.13.0", "device": DEVICE}


SKILLS = (Skill("perplexity", 12, 0.214, 11 / 12), Skill("prefill_latency", 12, 0.6, 10 / 12))


def write_study(path: Path, name: str = "halfway", question: str = "How small can it get?") -> str:
    """Write the synthetic study to a store at `path`; return the store's address."""
    url = f"sqlite:///{path}"
    with Store.open(url) as store:
        study = study_named(name, question)
        store.create_study(study, ENVIRONMENT, START)
        lease = store.acquire(name, "test", 600.0, START)
        store.set_state(lease, StudyState.RUNNING, "", START)
        for trial in trials():
            write_trial(store, lease, trial)
        store.save_front(lease, front_of(study, trials()))
        store.note(lease, EventKind.MODEL, START, payload={"skills": [s.to_mapping() for s in SKILLS]})
        store.add_hours(lease, 0.5)
        store.release(lease, START)
    return url


def write_trial(store: Store, lease: Lease, trial: Trial) -> None:
    """Write a trial as the coordinator does: asked, then as it stands."""
    keep = float(trial.candidate.values.get("factorise.keep_ratio", 1.0))
    question = Trial(
        trial.number, trial.candidate, trial.origin, plan_hash=trial.plan_hash, created_at=trial.created_at
    )
    store.add_trial(lease, question, () if trial.is_dense else plan(keep), trial.created_at)
    if trial.state != question.state:
        store.save_trial(lease, trial, EventKind(str(trial.state).replace("running", "started")), START)


def front_of(study: Study, trials: tuple[Trial, ...]) -> Front:
    members = on_front(study.objectives, trials)
    box = frame(study.objectives, trials)
    if box is None:
        raise ValueError("these trials fix no box")
    return Front(
        revision=1,
        members=tuple(t.number for t, kept in zip(trials, members, strict=True) if kept),
        hypervolume=box.hypervolume(losses(study.objectives, trials)[members]),
        reference=box.reference,
        ideal=box.ideal,
        trials=sum(t.state.is_final for t in trials),
        at=START,
    )
