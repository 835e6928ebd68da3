"""Anchors: the first trials of every study. They fix the reference point and keep the front honest."""

from collections.abc import Iterator, Sequence

from hpo.problem import Problem
from hpo.run.preview import pool
from hpo.space import Candidate
from hpo.trial import Trial

UNIFORM_SVD = Candidate.of({"factorise": "svd", "factorise.keep_ratio": 0.5})
"""Half the linear weights, the same share everywhere, nothing healed: the plainest thing to beat."""

INT8 = Candidate.of({"quantize": "rtn", "quantize.bits": 8, "quantize.group_size": 0})
INT4 = Candidate.of(
    {"quantize": "rtn", "quantize.bits": 4, "quantize.group_size": 32, "quantize.last_group": "short"}
)
"""Plain rounding, which needs no data and no search: a front that does not beat it has to say so."""


def anchors(problem: Problem) -> list[tuple[str, Candidate]]:
    """Return the anchors in order: the dense model, int8, int4, uniform SVD, the smallest and the largest
    candidate.

    Smallest and largest are by exact objectives where the study has any (bytes, MACs), else by the
    share of weights kept, which is the first plan feature.
    """
    found = [
        ("anchor:dense", Candidate()),
        ("anchor:int8", INT8),
        ("anchor:int4", INT4),
        ("anchor:svd", UNIFORM_SVD),
    ]
    candidates, preview = pool(problem)
    usable = [k for k, plan in enumerate(preview.plans) if plan and plan != "dense"]
    if usable:
        columns = preview.features if preview.features.shape[1] else preview.exact
        by_size = sorted(usable, key=lambda k: (float(columns[k, 0]), candidates[k].key))
        found.append(("anchor:smallest", candidates[by_size[0]]))
        found.append(("anchor:largest", candidates[by_size[-1]]))
    return found


def opening(
    problem: Problem, given: Sequence[Candidate], trials: Sequence[Trial]
) -> Iterator[tuple[str, Candidate, str]]:
    """Yield origin, candidate and plan hash of what every study begins with, one plan once: the anchors,
    then the candidates its file gives. What is among `trials` already is left out."""
    asked = {trial.origin for trial in trials}
    plans = {trial.plan_hash for trial in trials}
    named = [(f"given:{index}", candidate) for index, candidate in enumerate(given)]
    for origin, candidate in [*anchors(problem), *named]:
        plan = problem.preview([candidate]).plans[0]
        if origin not in asked and plan and plan not in plans:
            plans.add(plan)
            yield origin, candidate, plan
