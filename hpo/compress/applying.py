"""Apply a plan to a model, and heal what comes of it."""

from dataclasses import replace

from torch import nn

from hpo import registry
from hpo.compress.materials import Materials
from hpo.compress.method import Healed, Healer, Patient
from hpo.compress.plan import Plan
from hpo.compress.planner import preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.surgery import shared_copy
from hpo.compress.warm import keep_healed, start_from
from hpo.space import Candidate


def compressed(base: Profiler, candidate: Candidate, plan: Plan) -> nn.Module:
    """Return a copy of a model, in eval mode, compressed as planned; the rest shares its weights."""
    model = shared_copy(base.dense.module)
    materials = _materials(base, candidate)
    for name in (plan.embed, plan.factorise):
        if name:
            registry.load("method", name)().apply(model, plan, materials)
    return model.eval()


def healed(
    base: Profiler,
    candidate: Candidate,
    plan: Plan,
    model: nn.Module,
    *,
    seed: int | None = None,
    parent_plan: str = "",
    keep: bool = False,
) -> Healed | None:
    """Heal a compressed model in place; None where its plan has no healing.

    The teacher is the model that was compressed.

    Args:
        seed: of the plan unless one is given.
        parent_plan: hash of a plan whose healed factors to start from, if they are in the cache.
        keep: whether to keep the healed factors there, for others to start from.
    """
    if plan.heal is None:
        return None
    healer: Healer = registry.load("method", plan.heal.method)()
    patient = Patient(model, plan, _materials(base, candidate))
    warm = bool(parent_plan) and start_from(model, base.store.key, parent_plan, base.calibration)
    outcome = healer.heal(patient, plan.heal, heal_seed(plan) if seed is None else seed)
    if keep:
        keep_healed(model, base.store.key, plan.hash)
    return replace(outcome, warm=warm)


def heal_seed(plan: Plan) -> int:
    """Return the seed of a plan's healing: the same plan heals alike in every study and export."""
    return int.from_bytes(plan.hash.encode()[:7], "big")


def _materials(base: Profiler, candidate: Candidate) -> Materials:
    return base.materials(preparations_of(candidate))
