"""From a candidate to its plan: the one place where a recipe becomes exact."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from hpo import registry
from hpo.compress import features as plan_features
from hpo.compress.layer_plan import Dense
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import NONE, knob_values, step, values_of
from hpo.space import Candidate, SearchSpace

PREPARED_STAGES = ("embed", "factorise")
"""The stages whose methods name preparations."""


def plan_of(profile: ModelProfile, candidate: Candidate) -> Plan:
    """Return what a candidate does to the model.

    Ranks are allotted by the spectra of the dense model also where training comes before: a plan must
    be known before anything is run.

    Raises:
        Unsupported: a knob is out of range, or the model does not allow what is asked.
    """
    training = step(candidate, "train")
    embed = step(candidate, "embed")
    factorise = step(candidate, "factorise")
    healing = step(candidate, "heal")
    shapes = profile.architecture.layers
    layers: Any = tuple(Dense(x.out_features, x.in_features) for x in shapes)
    if factorise is not None:
        layers = factorise.method.plan(profile, factorise.knobs)
    return Plan(
        architecture=profile.architecture,
        layers=layers,
        factorise=factorise.name if factorise else "",
        heal=healing.method.plan(healing.knobs, layers) if healing and (factorise or embed) else None,
        embed=embed.name if embed else "",
        embedding=embed.method.plan(profile, embed.knobs) if embed else None,
        train=training.method.plan(training.knobs) if training else None,
    )


def features_of(profile: ModelProfile, plan: Plan) -> Array:
    """Return the features of a plan; see `hpo.compress.features`."""
    if plan.factorise:
        damage = registry.load("method", plan.factorise)().damage(profile, plan.layers)
    else:
        damage = np.zeros(len(plan.layers))
    return plan_features.features(profile, plan, damage)


def preparations_for(space: SearchSpace, more: Iterable[Preparation] = ()) -> tuple[Preparation, ...]:
    """Return what candidates of a space may need prepared."""
    found = dict.fromkeys(more)
    for stage in PREPARED_STAGES:
        for name in values_of(space, stage):
            if name != NONE:
                method = registry.load("method", str(name))()
                found |= dict.fromkeys(method.preparations(knob_values(space, stage, method.knob_type)))
    return tuple(sorted(found, key=lambda preparation: preparation.name))


def preparations_of(candidate: Candidate) -> tuple[Preparation, ...]:
    """Return what one candidate needs prepared.

    Raises:
        Unsupported: a knob is out of range.
    """
    found: dict[Preparation, None] = {}
    for stage in PREPARED_STAGES:
        if (chosen := step(candidate, stage)) is not None:
            values = {knob: (getattr(chosen.knobs, knob),) for knob in type(chosen.knobs).model_fields}
            found |= dict.fromkeys(chosen.method.preparations(values))
    return tuple(found)
