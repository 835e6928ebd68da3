"""A study whose trials take half a second and always come to the same: what is tested is all around it.

Two objectives over two numbers, both measured, with a front that bends; what a candidate comes to follows
from it alone, so a trial that is run again on another worker brings the same figures.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpo.metric import Source
from hpo.problem import Preview, Problem
from hpo.run.bench import Bench, Setup
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.space import Candidate
from hpo.study import Study
from hpo.trial import Measurement

STAGES = (FIRST_STAGE, "measure", "time")
NAME = "faults"

WORKER_LEASE_S = 4.0
"""A worker counts as gone after so long a silence."""


def study(trials: int, workers: int, seed: int, sampler: str) -> Study:
    return Study.from_mapping(
        {
            "version": 1,
            "name": NAME,
            "question": "Is anything lost when everything around a study fails?",
            "model": "reference",
            "objectives": [{"metric": "perplexity", "limit": 9.0}, {"metric": "kl_to_dense", "limit": 9.0}],
            "space": {name: {"type": "float", "low": 0.0, "high": 1.0} for name in ("x", "y")},
            "search": {"sampler": sampler, "seed": seed, "initial": 4, "stopping": "none"},
            "budget": {"trials": trials},
            "run": {
                "runner": "ray",
                "workers": workers,
                "device": "cpu",
                "attempts": 1000,
                "worker_lease_s": WORKER_LEASE_S,
            },
        }
    )


def outcome(candidate: Candidate) -> tuple[float, float]:
    """Return perplexity and KL divergence: less of one is more of the other, and half is the best `y`."""
    x, y = (float(candidate.values[name]) for name in ("x", "y"))
    waste = (y - 0.5) ** 2
    return 1.0 + x**2 + waste, 1.0 + (1.0 - x) ** 2 + waste


def problem(of: Study) -> Problem:
    """Return the problem; anchors, which are none of this space, are refused."""

    def preview(candidates: Sequence[Candidate]) -> Preview:
        known = [{"x", "y"} <= candidate.values.keys() for candidate in candidates]
        return Preview(
            exact=np.empty((len(candidates), 0)),
            features=np.array([[float(c.values.get("x", 0.0))] for c in candidates]).reshape(-1, 1),
            plans=tuple(c.key if k else "" for c, k in zip(candidates, known, strict=True)),
            refusals=tuple("" if k else "not of this space" for k in known),
        )

    return Problem(of.space, of.objectives, (), preview)


class ToyBench(Bench):
    """Three stages that sleep. `document`: ``stage_s``, the seconds of each."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._stage_s = float(document["stage_s"])

    def setup(self) -> Setup:
        return Setup(profile=None, device="cpu: toy", environment={}, energy_counter="")

    def run(self, job: Job, stage: str) -> StageResult:
        time.sleep(self._stage_s)
        perplexity, divergence = outcome(job.candidate)
        found: dict[str, tuple[Measurement, ...]] = {
            "measure": (Measurement("perplexity", perplexity, "ppl", Source.MEASURED),),
            "time": (Measurement("kl_to_dense", divergence, "nats per token", Source.MEASURED),),
        }
        following = "" if stage == STAGES[-1] else STAGES[STAGES.index(stage) + 1]
        return StageResult(stage, self._stage_s, following, found.get(stage, ()))

    def forget(self) -> None:
        pass
