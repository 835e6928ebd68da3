"""From a study and a model profile to the `Problem` that samplers see."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from hpo.compress.cache_shapes import kv_cache_bytes
from hpo.compress.features import damage_of
from hpo.compress.moves import moves
from hpo.compress.plan import Plan
from hpo.compress.planner import features_of, plan_of
from hpo.compress.profile import Array, ModelProfile
from hpo.errors import InvalidStudy, Unsupported
from hpo.measure.energy_model import modelled_energy_mj_per_token
from hpo.problem import Preview, Problem
from hpo.run.job import TIERS
from hpo.space import Candidate
from hpo.study import Study
from hpo.trial import Objective

_REMEMBERED = 50_000

ExactMetric = Callable[[Plan], float]

_EXACT: dict[str, ExactMetric] = {
    "weight_memory": lambda plan: float(plan.weight_bytes),
    "parameters": lambda plan: float(plan.parameters),
    "macs": lambda plan: plan.prefill_macs / plan.architecture.context,
    "kv_cache_memory": lambda plan: float(kv_cache_bytes(plan, plan.architecture.context)),
}


def modelled_energy(plan: Plan) -> float:
    """Return millijoules per prompt token by the published model; see `hpo.measure.energy_model`."""
    a = plan.architecture
    return modelled_energy_mj_per_token(plan.prefill_macs, plan.weight_bytes, a.context, a.weight_bits)


def exact_metrics(objectives: Sequence[Objective], energy_counter: str) -> dict[str, ExactMetric]:
    """Return the objectives that follow from a plan: exact ones, and energy where it is modelled."""
    known = dict(_EXACT)
    if not energy_counter:
        known["energy"] = modelled_energy
    return {o.metric: known[o.metric] for o in objectives if o.metric in known}


def problem_of(study: Study, profile: ModelProfile, energy_counter: str) -> Problem:
    """Return the search problem of a study for a profiled model."""
    exact = exact_metrics(study.objectives, energy_counter)
    losses = [(o, exact[o.metric]) for o in study.objectives if o.metric in exact]
    width = len(features_of(profile, plan_of(profile, Candidate())))

    @lru_cache(maxsize=_REMEMBERED)
    def row(candidate: Candidate) -> tuple[Array, Array, str, str, str]:
        try:
            plan = plan_of(profile, candidate)
        except Unsupported as error:
            nothing = np.full(len(losses), np.nan)
            return nothing, np.full(width, np.nan), "", str(error), ""
        values = np.array([o.loss(of(plan)) for o, of in losses])
        return values, features_of(profile, plan), plan.hash, "", plan.healed_as

    def preview(candidates: Sequence[Candidate]) -> Preview:
        rows = [row(candidate) for candidate in candidates]
        features = np.array([r[1] for r in rows]).reshape(len(rows), width)
        return Preview(
            exact=np.array([r[0] for r in rows]).reshape(len(rows), len(losses)),
            features=features,
            plans=tuple(r[2] for r in rows),
            refusals=tuple(r[3] for r in rows),
            guesses=damage_of(features),
            shared=tuple(r[4] for r in rows),
        )

    return Problem(
        study.space,
        study.objectives,
        tuple(o.metric for o, _ in losses),
        preview,
        TIERS,
        spends="seconds" if study.budget.is_timed else "trials",
        moves=partial(moves, profile),
    )


def pool(problem: Problem, count: int = 512) -> tuple[list[Candidate], Preview]:
    """Return a spread of candidates over the space, its corners first, and their preview."""
    dimensions = len(problem.space)
    corners = [
        [float(c == k) if k < dimensions else float(c > dimensions) for c in range(dimensions)]
        for k in range(dimensions + 1)
    ]
    inner = np.random.default_rng(0).random((count, dimensions))
    snapped = np.where(np.random.default_rng(1).random(inner.shape) < 0.3, np.round(inner), inner)
    points = [[0.0] * dimensions, [1.0] * dimensions, *corners, *snapped.tolist()]
    candidates = list(dict.fromkeys(problem.space.from_unit(point) for point in points))
    return candidates, problem.preview(candidates)


def check_reachable(study: Study, profile: ModelProfile, problem: Problem) -> None:
    """Refuse a study with a limit that no candidate can keep, judged by exact objectives alone.

    Raises:
        InvalidStudy: naming the objective, its limit and the best that was found.
    """
    candidates, preview = pool(problem)
    usable = [k for k, plan in enumerate(preview.plans) if plan]
    if not usable:
        raise InvalidStudy(
            f"no candidate of the space can be planned: {preview.refusals[0]}",
            "see hpo list methods for the knobs of each method",
            ("space",),
        )
    dense = plan_of(profile, Candidate())
    exact = exact_metrics(study.objectives, "" if "energy" in problem.exact else "counter")
    for index, objective in enumerate(study.objectives):
        if objective.metric not in problem.exact or objective.limit is None:
            continue
        limit = objective.limit.resolve(exact[objective.metric](dense))
        column = preview.exact[usable, problem.exact.index(objective.metric)]
        if limit is not None and column.min() > objective.loss(limit):
            best = objective.loss(float(column.min()))
            raise InvalidStudy(
                f"no candidate keeps {objective.metric} within {limit:.6g} {objective.about.unit}; "
                f"the best of {len(candidates)} is {best:.6g}",
                "loosen the limit or widen the space",
                ("objectives", index, "limit"),
            )
