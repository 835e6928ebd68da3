"""Jobs that heal for a while, and a bench that does them."""

from typing import Any

from hpo.compress.pausing import SHORT_STEPS
from hpo.run.job import FIRST_STAGE, Job, StageResult
from hpo.run.workbench import Workbench
from hpo.space import Value
from hpo.study import Study
from tests.run.test_launch import study

HEALED: dict[str, Value] = {
    "factorise": "whitened_svd",
    "factorise.keep_ratio": 0.5,
    "heal": "fine_tune",
    "heal.steps": SHORT_STEPS + 3,
}


def healing_study(**changes: Any) -> Study:
    space = {name: {"type": "choice", "choices": [value]} for name, value in HEALED.items()}
    objectives = ["perplexity", "weight_memory", "prefill_latency", "kl_to_dense"]
    return study(space=space, objectives=objectives, **changes)


def stages_of(bench: Workbench, job: Job) -> dict[str, StageResult]:
    """Run a job to its end, or to what stops it."""
    found: dict[str, StageResult] = {}
    stage = FIRST_STAGE
    while stage:
        found[stage] = bench.run(job, stage)
        stage = found[stage].following
    return found


def measured(found: dict[str, StageResult]) -> list[str]:
    return [m.metric for result in found.values() for m in result.measurements]
