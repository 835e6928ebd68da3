"""Benches without a model, so that the loop around them can be tested in milliseconds."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpo.metric import Source
from hpo.problem import Preview, Problem
from hpo.run.bench import Bench, Setup
from hpo.run.job import FIRST_STAGE, Failure, Job, StageResult
from hpo.space import Candidate
from hpo.study import Study
from hpo.trial import Cause, Measurement, Note

STAGES = (FIRST_STAGE, "measure", "time")


def study(trials: int = 12, **changes: Any) -> Study:
    """Return a study whose bench is here: two objectives over one number in [0, 1]."""
    document = {
        "version": 1,
        "name": "toy",
        "model": "reference",
        "objectives": ["perplexity", "weight_memory"],
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "search": {"sampler": "sobol", "initial": 4},
        "budget": {"trials": trials},
        "run": {"runner": "in_process"},
    }
    return Study.from_mapping({**document, **changes})


def x_of(candidate: Candidate) -> float:
    return float(candidate.values.get("x", 1.0))


def problem(of: Study, tiers: tuple[str, ...] = ()) -> Problem:
    def preview(candidates: Any) -> Preview:
        xs = np.array([x_of(c) for c in candidates]).reshape(-1, 1)
        plans = tuple("dense" if c.is_dense else f"{x_of(c):.6f}" for c in candidates)
        known = tuple(
            p if "x" in c.values or c.is_dense else "" for p, c in zip(plans, candidates, strict=True)
        )
        return Preview(exact=1000 * xs, features=xs, plans=known, refusals=tuple("" for _ in candidates))

    return Problem(of.space, of.objectives, ("weight_memory",), preview, tiers)


class ToyBench(Bench):
    """perplexity = 1 + (1 - x)^2, weight_memory = 1000 x; misbehaves as the document's faults say.

    The first stage gives the square away in a note, ``glimpse``.

    Faults (keys of ``document["faults"]``): trial number -> ``nan``, ``raise``, ``die`` (once: the
    first attempt only) or ``die-always``, ``hang``; ``*`` for every trial; ``slow`` seconds a stage;
    ``latency``, to measure prefill_latency too; ``device``, its fingerprint; ``joules`` that the energy
    counter shows for a stage.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._faults: Mapping[str, Any] = document.get("faults", {})
        self._log = document.get("log", "")

    def setup(self) -> Setup:
        if self._faults.get("setup"):
            raise RuntimeError("no such model")
        return Setup(
            profile=None,
            device=self._faults.get("device", "toy"),
            environment={"bench": "toy"},
            energy_counter="",
        )

    def run(self, job: Job, stage: str) -> StageResult:
        if self._log:
            with Path(self._log).open("a") as file:
                file.write(f"{job.number} {job.attempt} {stage}\n")
        time.sleep(float(self._faults.get("slow", 0.0)))
        fault = self._faults.get(str(job.number), self._faults.get("*", ""))
        if stage == "measure":
            if fault == "die-always" or (fault == "die" and job.attempt == 1):
                os._exit(9)
            if fault == "hang" and job.attempt == 1:
                time.sleep(600)
            if fault in ("nan", "raise"):
                cause = Cause.NOT_A_NUMBER if fault == "nan" else Cause.ERROR
                return StageResult(stage, 0.01, failure=Failure(cause, f"told to {fault}"))
        following = STAGES[STAGES.index(stage) + 1] if stage != STAGES[-1] else ""
        notes: dict[str, Note] = {"glimpse": (1 - x_of(job.candidate)) ** 2} if stage == FIRST_STAGE else {}
        found = tuple(m for m in self._measured(job, stage) if m.metric not in job.known)
        joules = self._faults.get("joules")
        return StageResult(stage, 0.01, following, found, notes, joules=joules)

    def _measured(self, job: Job, stage: str) -> list[Measurement]:
        x = x_of(job.candidate)
        if stage == "measure":
            return [Measurement("perplexity", 1 + (1 - x) ** 2, "ppl", "measured")]  # type: ignore[arg-type]  # as JSON gives it
        found = [Measurement.exact("weight_memory", 1000 * x)] if stage == "time" else []
        if stage == "time" and self._faults.get("latency"):
            device = self._faults.get("device", "toy")
            found.append(Measurement("prefill_latency", 5 + 10 * x, "ms", Source.MEASURED, device=device))
        return found

    def forget(self) -> None:
        pass


TOY = "tests.run.benches:ToyBench"
