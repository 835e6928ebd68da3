"""A bench and a Tune trainable that do nothing, so that only the machinery around them is timed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpo.problem import Preview, Problem
from hpo.run.bench import Bench, Setup
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.space import Candidate
from hpo.study import Study
from hpo.trial import Measurement

STAGES = (FIRST_STAGE, "heal", "measure", "time")


def study(trials: int, workers: int = 1) -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": "idle",
            "model": "reference",
            "objectives": ["macs", "weight_memory"],
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "search": {"sampler": "sobol"},
            "budget": {"trials": trials},
            "run": {"runner": "ray", "workers": workers},
        }
    )


def problem(of: Study) -> Problem:
    def preview(candidates: Sequence[Candidate]) -> Preview:
        xs = np.array([float(c.values.get("x", 1.0)) for c in candidates]).reshape(-1, 1)
        plans = tuple(
            "dense" if c.is_dense else f"{x:.8f}" if "x" in c.values else ""
            for c, x in zip(candidates, xs[:, 0], strict=True)
        )
        return Preview(np.hstack([1 - xs, xs]), xs, plans, tuple("" for _ in candidates))

    return Problem(of.space, of.objectives, ("macs", "weight_memory"), preview)


class IdleBench(Bench):
    """Four stages without work; the last one reports."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        pass

    def setup(self) -> Setup:
        return Setup(profile=None, device="idle", environment={}, energy_counter="")

    def run(self, job: Job, stage: str) -> StageResult:
        last = stage == STAGES[-1]
        x = float(job.candidate.values.get("x", 1.0))
        found = (Measurement.exact("macs", 1 - x), Measurement.exact("weight_memory", x)) if last else ()
        return StageResult(stage, 0.0, "" if last else STAGES[STAGES.index(stage) + 1], found)

    def forget(self) -> None:
        pass
