"""Compressed models to heal, and text that they can learn."""

from dataclasses import replace
from functools import cache

import torch

from hpo import registry
from hpo.compress import applying
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.losses import CrossEntropy
from hpo.compress.method import Healed, Healer, Patient
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.training import batches, split
from hpo.measure.quality import mean_nll
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from hpo.space import Candidate, Value
from tests.compress import small

FACTORISED: dict[str, dict[str, Value]] = {
    "low_rank": {"factorise": "whitened_svd", "factorise.keep_ratio": 0.4},
    "mild": {"factorise": "whitened_svd", "factorise.keep_ratio": 0.8},
    "mpo": {"factorise": "mpo", "factorise.bond_dimension": 4, "factorise.sites": 3},
}


def counting(sequences: int = 20) -> Corpus:
    """Text that can be learnt: counting up, from a random start."""
    starts = torch.randint(0, small.VOCABULARY, (sequences,), generator=torch.Generator().manual_seed(3))
    rows = tuple((start + torch.arange(small.CONTEXT)) % small.VOCABULARY for start in starts)
    return Corpus(rows, bytes=1000, digest=f"counting-{sequences}")


@cache
def taught() -> DenseModel:
    """Return a small model that knows how to count, so that compression hurts and healing helps."""
    dense = small.dense_model("llama", digest="test-taught")
    parameters = [p.requires_grad_(True) for p in dense.module.parameters()]
    adam, loss = torch.optim.AdamW(parameters, lr=1e-2), CrossEntropy(dense.module)
    drawn = batches(counting(64), 16, 0, torch.device("cpu"))
    for _ in range(60):
        adam.zero_grad()
        loss(*next(drawn)).backward()
        adam.step()
    adam.zero_grad()
    dense.module.requires_grad_(False)
    return dense


_PROFILERS: dict[tuple[str, str], Profiler] = {}
"""By digests; a profiler looks at its model anew otherwise."""


def patient(
    dense: DenseModel,
    healing: dict[str, Value],
    factorised: dict[str, Value] | None = None,
    text: Corpus | None = None,
) -> Patient:
    """Return a compressed model; `healing` names the healer as ``heal`` and its knobs without a prefix."""
    knobs = {name if name == "heal" else f"heal.{name}": value for name, value in healing.items()}
    candidate = Candidate.of({**(factorised or FACTORISED["low_rank"]), **knobs})
    text = text or counting()
    profiler = _PROFILERS.setdefault((dense.digest, text.digest), Profiler(dense, text, small.CONTEXT))
    preparations = preparations_of(candidate)
    plan = plan_of(profiler.profile(preparations), candidate)
    model = applying.compressed(profiler, candidate, plan)
    return Patient(model, plan, profiler.materials(preparations))


def heal(sick: Patient, seed: int = 1, **changed: Value) -> Healed:
    """Heal a model as its plan says, with some knobs changed."""
    plan = sick.plan.heal
    assert plan is not None
    knobs = type(plan.knobs).model_validate({**plan.knobs.model_dump(), **changed})
    healer: Healer = registry.load("method", plan.method)()
    return healer.heal(sick, replace(plan, knobs=knobs), seed)


def held_out_loss(sick: Patient) -> float:
    """Return nats per token of the text that healing chooses by."""
    return mean_nll(sick.model, split(sick.materials.calibration)[1])


def knobs(**values: Value) -> HealKnobs:
    return HealKnobs.model_validate(values)
