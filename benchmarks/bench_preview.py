"""How long does it take to preview 1,000 candidates of a 7B-shaped profile (224 matrices)?

Plans, exact objectives, features and plan hashes; synthetic power-law spectra, one thread. Cold: the
first preview in a process (rank tables are built); warm: another 1,000 candidates.

    python -m benchmarks.bench_preview
"""

import time
from dataclasses import dataclass

import numpy as np

from benchmarks.shapes import llama_7b_profile
from hpo.compress.recipe import check_space
from hpo.run.preview import problem_of
from hpo.study import Study

CANDIDATES = 1000


@dataclass(frozen=True)
class Row:
    """Seconds for 1,000 candidates."""

    condition: str
    candidates: int
    distinct_plans: int
    seconds: float


def study() -> Study:
    svd = {"factorise": ["svd", "whitened_svd"]}
    return Study.from_mapping(
        {
            "version": 1,
            "name": "preview",
            "model": "reference",
            "objectives": [
                "perplexity",
                "weight_memory",
                "macs",
                {"metric": "energy", "allow_modelled": True},
            ],
            "space": {
                "factorise": {"type": "choice", "choices": ["svd", "whitened_svd", "mpo"]},
                "factorise.keep_ratio": {"type": "float", "low": 0.2, "high": 0.95, "when": svd},
                "factorise.allocation": {"type": "choice", "choices": ["uniform", "spectral"], "when": svd},
                "factorise.sites": {"type": "int", "low": 2, "high": 4, "when": {"factorise": "mpo"}},
                "factorise.bond_dimension": {
                    "type": "int",
                    "low": 16,
                    "high": 2048,
                    "log": True,
                    "when": {"factorise": "mpo"},
                },
                "heal": {"type": "choice", "choices": ["none", "fine_tune"]},
                "heal.steps": {"type": "int", "low": 50, "high": 500, "when": {"heal": "fine_tune"}},
            },
            "budget": {"trials": 1},
        }
    )


def run() -> list[Row]:
    """Return a cold and two warm rows."""
    asked, profile, rows = study(), llama_7b_profile(), []
    check_space(asked.space)  # as every launch does first; it imports the methods, and torch with them
    problem = problem_of(asked, profile, "")
    rng = np.random.default_rng(0)
    for condition in ("cold", "warm", "warm"):
        candidates = [asked.space.from_unit(row) for row in rng.random((CANDIDATES, len(asked.space)))]
        started = time.perf_counter()
        preview = problem.preview(candidates)
        seconds = time.perf_counter() - started
        assert all(preview.plans)
        rows.append(Row(condition, CANDIDATES, len(set(preview.plans)), seconds))
    return rows


def main() -> None:
    print("| process | candidates | distinct plans | seconds |\n|---|---|---|---|")
    for r in run():
        print(f"| {r.condition} | {r.candidates} | {r.distinct_plans} | {r.seconds:.2f} |")


if __name__ == "__main__":
    main()
