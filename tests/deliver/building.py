"""Stores with completed trials of small models, made by the workbench itself, stage by stage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpo.compress.planner import plan_of
from hpo.run.job import FIRST_STAGE, Job
from hpo.run.workbench import Workbench
from hpo.space import Candidate, Value
from hpo.store.store import Store
from hpo.store.values import Front
from hpo.study import Study
from hpo.trial import Cause, StageTime, Trial

SVD: dict[str, Value] = {"factorise": "svd", "factorise.keep_ratio": 0.4}
WHITENED_HEALED: dict[str, Value] = {
    "factorise": "whitened_svd",
    "factorise.keep_ratio": 0.3,
    "heal": "fine_tune",
    "heal.steps": 20,
    "heal.learning_rate": 3e-3,
}
MPO: dict[str, Value] = {
    "factorise": "mpo",
    "factorise.sites": 3,
    "factorise.bond_dimension": 12,
    "factorise.contraction": "chain",
}
CACHED_MPO: dict[str, Value] = {**MPO, "factorise.sites": 2, "factorise.contraction": "cached"}
CORRECTED: dict[str, Value] = {"factorise": "eora", "factorise.rank": 4, "factorise.bits": 3}
PACKED: dict[str, Value] = {"factorise": "lplr", "factorise.rank_ratio": 1.0, "factorise.symmetric": False}
KIVI: dict[str, Value] = {**SVD, "cache": "kivi", "cache.bits": 4, "cache.group_size": 8, "cache.residual": 8}
SLICED: tuple[dict[str, Value], ...] = (
    {"prune": "slicegpt", "prune.keep_ratio": 0.75, **SVD, "quantize": "rtn", "quantize.group_size": 0},
    {"prune": "slicegpt", "prune.keep_ratio": 0.75, "prune.rotations": "shared"},
)
"""Of another width, which the dense form has not."""
SLICED_SPACE = {
    "prune": {"type": "choice", "choices": ["slicegpt"]},
    "prune.keep_ratio": {"type": "float", "low": 0.2, "high": 0.9},
    "prune.rotations": {"type": "choice", "choices": ["per_layer", "shared"]},
}
FURTHER: tuple[dict[str, Value], ...] = (
    {**WHITENED_HEALED, "heal": "lora", "heal.adapter": "kept", "heal.rank": 2},
    {"factorise": "basis_sharing", "factorise.keep_ratio": 0.4},
    {"embed": "tt_embedding", "embed.keep_ratio": 0.5, **SVD},
    {"factorise": "laser", "factorise.rho": 0.2, "factorise.store": "dense"},
    {
        "factorise": "mpo",
        "factorise.keep_ratio": 0.4,
        "factorise.sweeps": 1,
        "factorise.permutation": "cluster",
    },
    {"factorise": "modegpt", "factorise.keep_ratio": 0.5},
    {"quantize": "rtn", "quantize.group_size": 32, "quantize.correction": 0.2},
    {**SVD, "quantize": "rtn", "quantize.bits": 8, "quantize.group_size": 0},
    {"quantize": "awq", "quantize.group_size": 32, "quantize.alpha_steps": 4},
    {"factorise": "modegpt", "factorise.keep_ratio": 0.5, "quantize": "rtn", "quantize.group_size": 0},
    {"train": "stable_rank", "train.weight": 0.01, "train.steps": 3, **SVD},
    {"quantize": "nf4", "quantize.group_size": 32, "quantize.double": True},
    {"quantize": "nf4", "quantize.group_size": 0},
    {"quantize": "squeezellm", "quantize.bits": 3, "quantize.outliers": 0.001, "quantize.sensitive": 0.0},
    {"quantize": "squeezellm", "quantize.bits": 2, "quantize.outliers": 0.05},
    {**SVD, "quantize": "ternary"},
    {"quantize": "ternary", "heal": "straight_through", "heal.steps": 3, "order": "quantize > heal"},
    {"prune": "flap", "prune.keep_ratio": 0.6, "heal": "fine_tune", "heal.steps": 3},
    {"prune": "wanda_sp", "prune.keep_ratio": 0.7, **SVD},
    {"prune": "flap", "prune.keep_ratio": 0.6, "quantize": "rtn", "quantize.group_size": 0},
    {"prune": "drop_blocks", "prune.blocks": 1, "heal": "lora", "heal.rank": 2, "heal.steps": 3},
    {"sparsify": "magnitude", "sparsify.sparsity": 0.5, "heal": "fine_tune", "heal.steps": 3},
    {"sparsify": "wanda", "sparsify.pattern": "2:4", "sparsify.store": "n_m"},
    {**SVD, "sparsify": "sparsegpt", "sparsify.sparsity": 0.3, "sparsify.store": "csr"},
    {
        "factorise": "modegpt",
        "factorise.keep_ratio": 0.5,
        "sparsify": "wanda",
        "sparsify.sparsity": 0.5,
        "sparsify.store": "bitmap",
        "quantize": "rtn",
        "quantize.group_size": 0,
    },
    {
        "sparsify": "magnitude",
        "sparsify.sparsity": 0.5,
        "heal": "lora",
        "heal.adapter": "kept",
        "heal.rank": 2,
        "heal.steps": 3,
    },
)
"""One of every other kind of module that a model can be given."""

FURTHER_SPACE = {
    "prune": {"type": "choice", "choices": ["none", "wanda_sp", "flap", "drop_blocks"]},
    "prune.keep_ratio": {"type": "float", "low": 0.5, "high": 0.9, "when": {"prune": ["wanda_sp", "flap"]}},
    "embed": {"type": "choice", "choices": ["none", "tt_embedding"]},
    "embed.keep_ratio": {"type": "float", "low": 0.2, "high": 0.9, "when": {"embed": ["tt_embedding"]}},
    "factorise": {
        "type": "choice",
        "choices": ["svd", "whitened_svd", "basis_sharing", "laser", "mpo", "modegpt"],
    },
    "factorise.permutation": {"type": "choice", "choices": ["cluster"], "when": {"factorise": ["mpo"]}},
}
"""What the model is profiled for; no candidate is drawn from it."""

SPACE = {
    "factorise": {"type": "choice", "choices": ["svd", "whitened_svd", "mpo"]},
    "factorise.keep_ratio": {
        "type": "float",
        "low": 0.2,
        "high": 0.9,
        "when": {"factorise": ["svd", "whitened_svd"]},
    },
    "factorise.sites": {"type": "int", "low": 2, "high": 3, "when": {"factorise": ["mpo"]}},
    "factorise.bond_dimension": {"type": "int", "low": 4, "high": 16, "when": {"factorise": ["mpo"]}},
    "heal": {"type": "choice", "choices": ["none", "fine_tune"]},
    "heal.steps": {"type": "int", "low": 2, "high": 20, "step": 2, "when": {"heal": ["fine_tune"]}},
}


def study(name: str, source: str = "reference", **more: Any) -> Study:
    """Return a small study of a model, judged by 2,048 tokens."""
    document = {
        "version": 1,
        "name": name,
        "question": "Does it come home whole?",
        "model": {"source": source},
        "data": {
            "calibration": {"reference": True, "tokens": 4096},
            "evaluation": {"reference": True, "tokens": 2048},
        },
        "objectives": ["perplexity", "weight_memory"],
        "space": SPACE,
        "search": {"sampler": "sobol", "initial": 1},
        "budget": {"trials": 6},
        "run": {"runner": "in_process", "device": "cpu"},
    }
    return Study.from_mapping({**document, **more})


def record(store: Store, made: Study, candidates: Sequence[dict[str, Value]]) -> None:
    """Store a study with the dense trial, one completed trial a candidate, and one that failed."""
    bench = Workbench(made.to_mapping())
    setup = bench.setup()
    assert setup.profile is not None
    store.create_study(made, {**setup.environment, "profile": setup.profile.key}, 1.0)
    lease = store.acquire(made.name, "a test", 3600, 2.0)
    for number, values in enumerate([{}, *candidates]):
        waiting = Trial(number, Candidate.of(values), "test", created_at=3.0)
        store.add_trial(lease, _run(bench, waiting), (), 3.0)
    broken = Trial(len(candidates) + 1, Candidate.of(SVD), "test", plan_hash="x", created_at=3.0)
    failed = broken.started("here", 4.0).failed(Cause.OUT_OF_MEMORY, "no room for it", 5.0)
    store.add_trial(lease, failed, (), 3.0)
    members = tuple(range(1, len(candidates) + 1))
    store.save_front(lease, Front(1, members, None, (), (), len(members), 6.0))
    store.release(lease, 7.0)


def _run(bench: Workbench, waiting: Trial) -> Trial:
    """Run every stage of a trial on a bench."""
    plan_hash = plan_of(bench.profile, waiting.candidate).hash
    job = Job(waiting.number, waiting.attempt, waiting.candidate, plan_hash)
    trial, stage = replace(waiting, plan_hash=plan_hash).started("here", 4.0), FIRST_STAGE
    while stage:
        result = bench.run(job, stage)
        assert result.failure is None, result.failure
        trial = trial.advanced(StageTime(stage, 0.0), result.measurements, result.notes)
        stage = result.following
    bench.forget()
    return trial.completed(5.0)


def names(directory: Path) -> set[str]:
    """Return what lies in a directory, hidden things included."""
    return {path.name for path in directory.iterdir()}
