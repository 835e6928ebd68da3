"""Apply a plan to a model, change by change, and heal what comes of it."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from hpo import registry
from hpo.compress.keeper import Keeper
from hpo.compress.layers import PackedCaching
from hpo.compress.method import Healed, Healer, Healing, Patient
from hpo.compress.pausing import healing_of, run_out
from hpo.compress.plan import Change, Plan
from hpo.compress.planner import preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.shared_healing import SharedHealing
from hpo.compress.surgery import shared_copy
from hpo.compress.warm import keep_healed, start_from
from hpo.models.cache import Unwritable
from hpo.space import Candidate

_log = logging.getLogger(__name__)


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
    keeper: Keeper | None = None,
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
        keeper: keeps checkpoints of this healing, and takes it up from one; by default there are none. The
            caller removes what it leaves.

    Raises:
        Preempted: the keeper was told that the process has to go.
    """
    shared = SharedHealing(base.store.key, plan.healed_as) if share and not parent_plan else None
    outcome = shared.given_to(model) if shared is not None else None
    if outcome is None:
        names = tuple(model.state_dict())
        seed = heal_seed(plan) if seed is None else seed
        outcome = yield from _by_healer(base, candidate, plan, model, seed, parent_plan, keeper)
        if shared is not None:
            with _optional():
                shared.keep(model, base.dense.module, names, outcome)
    if keep:
        with _optional():
            keep_healed(model, base.store.key, plan.hash)
    finished(base, candidate, plan, model)
    return outcome


def finished(base: Profiler, candidate: Candidate, plan: Plan, model: nn.Module) -> nn.Module:
    """Make the changes that come after a plan's healing, in place; the model is in eval mode then."""
    after = [change for change in plan.changes if change.is_healed]
    return with_cache(_made(base, candidate, model, after, is_dense=False).eval(), plan)


def _by_healer(
    base: Profiler,
    candidate: Candidate,
    plan: Plan,
    model: nn.Module,
    seed: int,
    parent_plan: str,
    keeper: Keeper | None,
) -> Healing:
    assert plan.heal is not None
    healer: Healer = registry.load("method", plan.heal.method)()
    materials = base.materials(preparations_of(candidate, _stages(plan.changes)))
    warm = bool(parent_plan) and start_from(model, base.store.key, parent_plan, base.calibration)
    if keeper is not None:
        begun_from = parent_plan if warm else ""
        keeper.at(base.store.key, f"{plan.healed_as or plan.hash}|{seed}|{begun_from}")
    patient = Patient(model, plan, materials, keeper or Keeper())
    outcome = yield from healing_of(healer, patient, plan.heal, seed)
    return replace(outcome, warm=warm)


@contextmanager
def _optional() -> Iterator[None]:
    """Go on without what only saves later trials some work, where there is no room for it."""
    try:
        yield
    except Unwritable as error:
        _log.warning("a healing is not kept for other trials: %s", error)


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
