"""Apply a plan to a model, change by change, and heal what comes of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from hpo import registry
from hpo.compress.layers import PackedCaching
from hpo.compress.method import Healed, Healer, Patient
from hpo.compress.plan import Change, Plan
from hpo.compress.planner import preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.surgery import shared_copy
from hpo.compress.warm import keep_healed, start_from
from hpo.space import Candidate


def compressed(base: Profiler, candidate: Candidate, plan: Plan) -> nn.Module:
    """Return a copy of a model, in eval mode, with every change of a plan that comes before healing made;
    the rest shares its weights."""
    model = shared_copy(base.dense.module)
    before = [change for change in plan.changes if not change.is_healed]
    _made(base, candidate, model, before, is_dense=True).eval()
    return model if plan.heal is not None else with_cache(model, plan)


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
    """Heal a compressed model in place and make the changes that come after; None where its plan has no
    healing.

    The teacher is the model that was compressed.

    Args:
        seed: of the plan unless one is given.
        parent_plan: hash of a plan whose healed factors to start from, if they are in the cache.
        keep: whether to keep the healed factors there, for others to start from.
    """
    if plan.heal is None:
        return None
    healer: Healer = registry.load("method", plan.heal.method)()
    patient = Patient(model, plan, base.materials(preparations_of(candidate, _stages(plan.changes))))
    warm = bool(parent_plan) and start_from(model, base.store.key, parent_plan, base.calibration)
    outcome = healer.heal(patient, plan.heal, heal_seed(plan) if seed is None else seed)
    if keep:
        keep_healed(model, base.store.key, plan.hash)
    after = [change for change in plan.changes if change.is_healed]
    with_cache(_made(base, candidate, model, after, is_dense=False).eval(), plan)
    return replace(outcome, warm=warm)


def with_cache(model: nn.Module, plan: Plan) -> nn.Module:
    """Let a model remember keys and values as planned, in place. It comes last of all: healing makes no
    cache."""
    if plan.cache is not None:
        cache, blocks = plan.cache, len(plan.architecture.cache)
        PackedCaching(cache.bits, cache.group_size, cache.residual, blocks).install(model)
    return model


def heal_seed(plan: Plan) -> int:
    """Return the seed of a plan's healing: the same plan heals alike in every study and export."""
    return int.from_bytes(plan.hash.encode()[:7], "big")


def _made(
    base: Profiler, candidate: Candidate, model: nn.Module, changes: Sequence[Change], *, is_dense: bool
) -> nn.Module:
    """Make changes in place, one after the other."""
    for number, change in enumerate(changes):
        wanted = preparations_of(candidate, [change.stage])
        # What these make of the dense model's layers is of no use to layers that have changed.
        is_of_use = is_dense or change.stage not in ("sparsify", "quantize")
        materials = base.materials(wanted if is_of_use else ())
        if change.stage == "factorise" and number > 0 and changes[number - 1].stage == "prune":
            materials = _of_pruned(base, model, changes[number - 1]).materials(wanted)
        method = registry.load("method", change.method)()
        method.apply(model, change.plan, replace(materials, is_dense=is_dense))
        is_dense = False
    return model


def _of_pruned(base: Profiler, model: nn.Module, pruning: Change) -> Profiler:
    """Return what prepares a pruned model as if it were a dense one: its factors are its own."""
    content = f"{base.dense.digest}|{pruning.method}|{pruning.plan.hash}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    dense = replace(base.dense, module=shared_copy(model), digest=digest)
    return Profiler(dense, base.calibration, base.context)


def _stages(changes: Sequence[Change]) -> list[str]:
    return [change.stage for change in changes]
