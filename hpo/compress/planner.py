"""From a candidate to its plan: the one place where a recipe becomes exact."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hpo import registry
from hpo.compress import features as plan_features
from hpo.compress.cache_shapes import cache_shapes
from hpo.compress.composed_plan import composed
from hpo.compress.plan import Change, Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import NONE, Step, knob_values, stages_of, step, values_of
from hpo.compress.slicegpt_plan import KIND as SLICED
from hpo.errors import Unsupported
from hpo.space import Candidate, SearchSpace

PREPARED_STAGES = ("prune", "embed", "factorise", "sparsify", "quantize")
"""The stages whose methods name preparations."""


def plan_of(profile: ModelProfile, candidate: Candidate) -> Plan:
    """Return what a candidate does to the model.

    Ranks are allotted by the spectra of the dense model also where training comes before: a plan must
    be known before anything is run.

    Raises:
        Unsupported: a knob is out of range, stages are in an order that makes no sense, or the model does
            not allow what is asked.
    """
    plan = Plan(profile.architecture, profile.dense_layers)
    stages = stages_of(candidate)
    for number, stage in enumerate(stages):
        chosen = step(candidate, stage)
        assert chosen is not None
        _check_place(chosen, stage, stages[number + 1 :])
        plan = _STAGES[stage](plan, profile, stage, chosen)
    return plan


def _check_place(chosen: Step, stage: str, later: Sequence[str]) -> None:
    """Refuse a method before a stage whose work it needs, which a healer may name in `follows`."""
    for needed in getattr(chosen.method, "follows", ()):
        if needed in later:
            raise Unsupported(
                f"{chosen.name} treats what {needed} makes, and comes before it",
                f"name an order in which it comes after, such as order: {needed} > {stage}",
            )


def _trained(plan: Plan, profile: ModelProfile, stage: str, chosen: Step) -> Plan:
    return replace(plan, train=chosen.method.plan(chosen.knobs))


def _pruned(plan: Plan, profile: ModelProfile, stage: str, chosen: Step) -> Plan:
    cut = chosen.method.plan(profile, chosen.knobs)
    return _changed(replace(plan, layers=cut.layers, rest=cut.rest), stage, chosen, plan.architecture)


def _embedded(plan: Plan, profile: ModelProfile, stage: str, chosen: Step) -> Plan:
    if any(part.kind != "removed" for part in plan.rest):  # what goes with a block is no embedding
        raise Unsupported(
            f"{chosen.name} after a stage that changes the embedding or the width", "choose one of the two"
        )
    embedding = chosen.method.plan(profile, chosen.knobs)
    if embedding is None:
        return plan
    return _changed(replace(plan, embedding=embedding), stage, chosen, plan.architecture)


def _factorised(plan: Plan, profile: ModelProfile, stage: str, chosen: Step) -> Plan:
    if plan.change("prune") is None:
        inner = chosen.method.plan(profile, chosen.knobs)
        return _changed(replace(plan, layers=inner), stage, chosen, plan.architecture)
    smaller = profile.cut_to(plan.layers)
    found = dict(
        zip((x.name for x in smaller.shapes), chosen.method.plan(smaller, chosen.knobs), strict=True)
    )
    layers = tuple(
        composed(layer, found[shape.name]) if shape.name in found else layer for shape, layer in plan.named()
    )
    view = Plan(smaller.architecture, tuple(found.values()))
    change = Change(stage, chosen.name, view, plan.heal is not None)
    return replace(plan, layers=layers, changes=(*plan.changes, change))


def _reformed(plan: Plan, profile: ModelProfile, stage: str, chosen: Step) -> Plan:
    if plan.heal is not None and plan.heal.kept_parameters:
        raise Unsupported(
            f"{stage} after a healing whose adapters stay", "merge them (adapter: merged), or heal last"
        )
    layers = chosen.method.plan(profile, chosen.knobs, plan.layers)
    return _changed(replace(plan, layers=layers), stage, chosen, plan.architecture)


def _healed(plan: Plan, profile: ModelProfile, stage: str, chosen: Step) -> Plan:
    if not plan.changes:
        return plan
    loss = getattr(chosen.knobs, "loss", "")
    if loss in ("hidden", "local") and any(part.kind == SLICED for part in plan.rest):
        raise Unsupported(
            f"{chosen.name}: heal.loss={loss} compares hidden states with the dense model's, "
            "which are wider than those of the sliced one and in another basis",
            "use the loss cross_entropy or distil",
        )
    healed = replace(plan, heal=chosen.method.plan(chosen.knobs, plan.layers))
    return replace(healed, healed_as=healed.hash) if healed.heal is not None else healed


def _cached(plan: Plan, profile: ModelProfile, stage: str, chosen: Step) -> Plan:
    return replace(plan, cache=chosen.method.plan(chosen.knobs, cache_shapes(plan)))


def _changed(plan: Plan, stage: str, chosen: Step, architecture: Any) -> Plan:
    """Return the plan with what it now holds as the view of a further change."""
    view = Plan(architecture, plan.layers, embedding=plan.embedding, rest=plan.rest)
    change = Change(stage, chosen.name, view, plan.heal is not None)
    return replace(plan, changes=(*plan.changes, change))


_STAGES = {
    "train": _trained,
    "prune": _pruned,
    "embed": _embedded,
    "factorise": _factorised,
    "sparsify": _reformed,
    "heal": _healed,
    "quantize": _reformed,
    "cache": _cached,
}


def features_of(profile: ModelProfile, plan: Plan) -> Array:
    """Return the features of a plan; see `hpo.compress.features`. What stages do to a layer adds up as
    independent errors do."""
    left = np.ones(len(plan.layers))
    for change in plan.changes:
        if change.stage == "embed":
            continue
        left *= 1 - np.square(_damage(profile, plan, change))
    return plan_features.features(profile, plan, np.sqrt(1 - np.clip(left, 0.0, 1.0)))


def _damage(profile: ModelProfile, plan: Plan, change: Change) -> Array:
    method = registry.load("method", change.method)()
    if change.plan.architecture is profile.architecture:
        found: Array = method.damage(profile, change.plan.layers)
        return found
    # The spectra of a pruned model are not known before it is made: the share of weights that goes stands in.
    lost = {shape.name: 1 - layer.costs.parameters / shape.parameters for shape, layer in change.plan.named()}
    return np.sqrt([max(lost.get(shape.name, 0.0), 0.0) for shape in profile.shapes])


def preparations_for(space: SearchSpace, more: Iterable[Preparation] = ()) -> tuple[Preparation, ...]:
    """Return what candidates of a space may need prepared."""
    found = dict.fromkeys(more)
    for stage in PREPARED_STAGES:
        for name in values_of(space, stage):
            if name != NONE:
                method = registry.load("method", str(name))()
                found |= dict.fromkeys(method.preparations(knob_values(space, stage, method.knob_type)))
    return tuple(sorted(found, key=lambda preparation: preparation.name))


def preparations_of(candidate: Candidate, stages: Sequence[str] = PREPARED_STAGES) -> tuple[Preparation, ...]:
    """Return what one candidate needs prepared, for all stages or some.

    Raises:
        Unsupported: a knob is out of range.
    """
    found: dict[Preparation, None] = {}
    for stage in stages:
        if stage in PREPARED_STAGES and (chosen := step(candidate, stage)) is not None:
            values = {knob: (getattr(chosen.knobs, knob),) for knob in type(chosen.knobs).model_fields}
            found |= dict.fromkeys(chosen.method.preparations(values))
    return tuple(found)
