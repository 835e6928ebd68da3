"""A toy of a search with tiers: what a trial shows before it is measured tells what the plan does not."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hpo.metric import Source
from hpo.problem import Preview, Problem
from hpo.space import Candidate, Choice, Float, SearchSpace
from hpo.trial import Limit, Measurement, Objective, StageTime, Trial
from tests.search.problems import plan_of

SPACE = SearchSpace.of(
    [
        ("keep", Float(low=0.1, high=1.0)),
        ("luck", Float(low=0.0, high=1.0)),
        ("heal", Choice(choices=("none", "some"))),
    ]
)


def size(candidate: Candidate) -> float:
    return 100 * float(candidate.values.get("keep", 1.0))


def preview(candidates: Sequence[Candidate]) -> Preview:
    return Preview(
        exact=np.array([[size(c)] for c in candidates]).reshape(len(candidates), 1),
        features=np.array([[size(c) / 100] for c in candidates]).reshape(len(candidates), 1),
        plans=tuple("dense" if c.is_dense else plan_of(c.items) for c in candidates),
        refusals=("",) * len(candidates),
    )


PROBLEM = Problem(
    SPACE,
    (Objective(metric="perplexity", limit=Limit(ratio_to_dense=10.0)), Objective(metric="weight_memory")),
    ("weight_memory",),
    preview,
    ("kl", "nll_short"),
)


def damage(candidate: Candidate) -> float:
    """Nats lost: more with less kept, and with a part that no plan tells of."""
    values = candidate.values
    lost = (1.1 - float(values.get("keep", 1.0))) ** 2 + float(values.get("luck", 0.0))
    return 0.4 * lost if values.get("heal") == "some" else lost


def tiers(candidate: Candidate, noise: float) -> dict[str, float | str]:
    healed = candidate.values.get("heal") == "some"
    kl = damage(candidate) / (0.4 if healed else 1.0) * (1 + noise)
    return {"kl": kl, "nll_short": 1 + 1.5 * damage(candidate) * (1 + noise)} if healed else {"kl": kl}


def running(number: int, candidate: Candidate, origin: str = "test", noise: float = 0.0) -> Trial:
    trial = Trial(number, candidate, origin, PROBLEM.preview([candidate]).plans[0]).started("worker", 0.0)
    notes = {} if candidate.is_dense else tiers(candidate, noise)
    return trial.advanced(StageTime("screen", 1.0), notes=notes)


def finished(trial: Trial) -> Trial:
    measured = (
        Measurement("perplexity", 5 * float(np.exp(damage(trial.candidate))), "ppl", Source.MEASURED),
        Measurement.exact("weight_memory", size(trial.candidate)),
    )
    return replace(trial, measurements=measured).completed(1.0)


def point(keep: float, luck: float, heal: str = "none") -> Candidate:
    return Candidate.of({"keep": keep, "luck": luck, "heal": heal})


def history(count: int, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    found = [finished(running(0, Candidate(), "anchor:dense"))]
    for number in range(1, count + 1):
        keep, luck = rng.random(2)
        heal = "some" if rng.random() < 0.5 else "none"
        candidate = point(0.1 + 0.9 * float(keep), float(luck), heal)
        found.append(finished(running(number, candidate, noise=float(rng.normal(0, 0.03)))))
    return found
