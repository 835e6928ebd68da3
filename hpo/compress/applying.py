"""Apply a plan to a model, change by change, and heal what comes of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from hpo import registry
from hpo.compress.layers import PackedCaching
from hpo.compress.method import Healed, Healer, Healing, Patient
from hpo.compress.pausing import healing_of, run_out
from hpo.compress.plan import Change, Plan
from hpo.compress.planner import preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.shared_healing import SharedHealing
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
    """Do a `healing` in one go; None where a plan has none.

    Args:
        keep: whether to keep the healed factors in the cache, for others to start from.
    """
    if plan.heal is None:
        return None
    return run_out(healing(base, candidate, plan, model, seed=seed, parent_plan=parent_plan, keep=keep))


def healing(
    base: Profiler,
    candidate: Candidate,
    plan: Plan,
    model: nn.Module,
    *,
    seed: int | None = None,
    parent_plan: str = "",
    keep: bool = False,
    share: bool = False,
) -> Healing:
    """Heal a compressed model in place and make the changes that come after; pauses as its healer does.

    The teacher is the model that was compressed.

    Args:
        plan: one with a healing.
        seed: of the plan unless one is given.
        parent_plan: hash of a plan whose healed factors to start from, if they are in the cache.
        keep: whether to keep the healed factors there, for others to start from.
        share: whether to take the healing of an earlier plan that differs only in what comes after, where it
            is in the cache, and to keep this one's for later plans. A shared healing does not pause.
    """
    shared = SharedHealing(base.store.key, plan.healed_as) if share and not parent_plan else None
    outcome = shared.given_to(model) if shared is not None else None
    if outcome is None:
        names = tuple(model.state_dict())
        seed = heal_seed(plan) if seed is None else seed
        outcome = yield from _by_healer(base, candidate, plan, model, seed, parent_plan)
        if shared is not None:
            shared.keep(model, base.dense.module, names, outcome)
    if keep:
        keep_healed(model, base.store.key, plan.hash)
    after = [change for change in plan.changes if change.is_healed]
    with_cache(_made(base, candidate, model, after, is_dense=False).eval(), plan)
    return outcome


def _by_healer(
    base: Profiler, candidate: Candidate, plan: Plan, model: nn.Module, seed: int, parent_plan: str
) -> Healing:
    assert plan.heal is not None
    healer: Healer = registry.load("method", plan.heal.method)()
    patient = Patient(model, plan, base.materials(preparations_of(candidate, _stages(plan.changes))))
    warm = bool(parent_plan) and start_from(model, base.store.key, parent_plan, base.calibration)
    outcome = yield from healing_of(healer, patient, plan.heal, seed)
    return replace(outcome, warm=warm)


def with_cache(model: nn.Module, plan: Plan) -> nn.Module:
    """Let a model remember keys and values as planned, in place. It comes last of all: healing makes no
    cache."""
    if plan.cache is not None:
        cache, blocks = plan.cache, len(plan.architecture.cache)
        PackedCaching(cache.bits, cache.group_size, cache.residual, blocks).install(model)
    return model


def heal_seed(plan: Plan) -> int:
    """Return the seed of a plan's healing: the same plan heals alike in every study and export, and alike
    whatever comes after the healing."""
    return int.from_bytes((plan.healed_as or plan.hash).encode()[:7], "big")


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
