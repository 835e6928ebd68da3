"""A small conditional simulation for tests: refused, failing and repeated plans, and a dense anchor."""

from collections.abc import Sequence

import numpy as np

from benchmarks.search.simulation import Answer, Simulation
from hpo.problem import Preview, Problem
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Cause, Limit, Objective, StageTime

SPACE = SearchSpace.of(
    [
        ("kind", Choice(choices=("thin", "flat", "none"))),
        ("kind.keep", Float(low=0.1, high=1.0, when={"kind": ("thin",)})),
        ("kind.rank", Int(low=1, high=64, log=True, when={"kind": ("flat",)})),
        ("kind.even", Choice(choices=(False, True), when={"kind": ("thin", "flat")})),
        ("steps", Int(low=0, high=100, step=50)),
        ("only", Choice(choices=("this",))),
    ]
)


def _size(candidate: Candidate) -> float:
    """Bytes: in tenths, so that close candidates are one plan."""
    kept = candidate.values.get("kind.keep", int(candidate.values.get("kind.rank", 32)) / 64)
    return round(10 * float(kept)) / 10


def _preview(candidates: Sequence[Candidate]) -> Preview:
    sizes = [_size(c) for c in candidates]
    refused = [c.values.get("kind") == "none" for c in candidates]
    plans = [
        "" if no else f"{c.values.get('kind')} {size} {c.values.get('kind.even')} {c.values.get('steps')}"
        for c, size, no in zip(candidates, sizes, refused, strict=True)
    ]
    return Preview(
        exact=np.where(refused, np.nan, np.array(sizes))[:, None],
        features=np.empty((len(candidates), 0)),
        plans=tuple(plans),
        refusals=tuple("nothing to do" if no else "" for no in refused),
    )


def _truth(candidate: Candidate) -> Answer:
    steps = int(candidate.values.get("steps", 0))
    stages = (StageTime("compress", 2.0), StageTime("heal", 0.1 * steps))
    if candidate.values.get("kind.even") and steps == 100:
        return Answer(Cause.NOT_A_NUMBER, stages)
    size = _size(candidate)
    perplexity = 30 - 20 * size - steps / 50
    return Answer({"perplexity": perplexity, "weight_memory": size}, stages, {"steps": float(steps)})


def conditional() -> Simulation:
    """Return the simulation: two objectives, the second exact, and two of three kinds with their knobs."""
    objectives = (
        Objective(metric="perplexity", limit=Limit(value=30.0)),
        Objective(metric="weight_memory", limit=Limit(ratio_to_dense=2.0)),
    )
    inside: dict[str, Value] = {
        "kind": "thin",
        "kind.keep": 0.9,
        "kind.even": False,
        "steps": 0,
        "only": "this",
    }
    anchors = (("anchor:dense", Candidate()), ("anchor:thin", Candidate.of(inside)))
    problem = Problem(SPACE, objectives, ("weight_memory",), _preview)
    return Simulation("conditional", problem, _truth, anchors, best=0.5)
