"""Does a search over all families together find a better front than one over each, and do combinations win?

The reference model, perplexity against bytes of weights, the same number of trials, sampler, seed and
anchors (dense, int8, int4, half SVD, the smallest and the largest of each space) for every study. The first
is of the shipped space `everything`, the others of its parts, each with the same healing. Hypervolume is the
share of the box between no bytes and the dense ones, and the dense perplexity and thrice that (logarithms).

    python -m benchmarks.bench_everything
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.pareto import Frame
from hpo.run.launch import Watcher, launch
from hpo.store.store import Store
from hpo.study import Study
from hpo.study_file import read_study
from hpo.trial import Trial, TrialState

TRIALS = 60
FAMILIES = ("prune", "factorise", "sparsify", "quantize")
SPACES: dict[str, tuple[str, ...]] = {
    "everything": FAMILIES,
    "factorise and heal": ("factorise",),
    "prune and heal": ("prune",),
    "sparsify and heal": ("sparsify",),
    "quantize": ("quantize",),
}
"""Study -> the families its candidates may use."""
BUDGETS = (0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4)
"""Shares of the dense model's bytes."""


@dataclass(frozen=True)
class Point:
    """A completed trial."""

    perplexity: float
    share: float
    """Bytes of weights over the dense model's."""
    families: tuple[str, ...]
    candidate: str


def study_of(name: str, families: Sequence[str], trials: int = TRIALS) -> Study:
    """Return a study of the shipped space with only some families in it."""
    shipped = read_study("everything", []).to_mapping()
    space = {}
    for key, parameter in shipped["space"].items():
        stage = key.partition(".")[0]
        if stage in families or (stage == "heal" and set(families) - {"quantize"}):
            kept = {
                k: v
                for k, v in parameter.get("when", {}).items()
                if k.partition(".")[0] in families or k == stage
            }
            space[key] = (
                {**parameter, "when": kept} if kept else {k: v for k, v in parameter.items() if k != "when"}
            )
    document: dict[str, Any] = {
        **shipped,
        "name": name.replace(" ", "-"),
        "objectives": [
            {"metric": "perplexity", "limit": {"ratio_to_dense": 3.0}},
            {"metric": "weight_memory"},
        ],
        "space": space,
        "budget": {"trials": trials},
        "run": {"runner": "in_process", "device": "cpu"},
    }
    return Study.from_mapping(document)


def points(trials: Sequence[Trial]) -> list[Point]:
    dense = next(trial for trial in trials if trial.is_dense)
    whole = dense.value("weight_memory")
    assert whole is not None
    found = []
    for trial in trials:
        perplexity, held = trial.value("perplexity"), trial.value("weight_memory")
        if trial.state is TrialState.COMPLETED and perplexity is not None and held is not None:
            families = tuple(f for f in FAMILIES if trial.candidate.values.get(f, "none") != "none")
            found.append(Point(perplexity, held / whole, families, str(trial.candidate)))
    return found


def hypervolume(found: Sequence[Point], dense: float) -> float:
    losses = np.array([[math.log(max(p.perplexity, dense) / dense), p.share] for p in found])
    return Frame((0.0, 0.0), (math.log(3.0), 1.0)).hypervolume(losses)


def best(found: Sequence[Point], share: float) -> Point | None:
    able = [point for point in found if point.share <= share]
    return min(able, key=lambda point: point.perplexity, default=None)


def main() -> None:
    runs: dict[str, list[Point]] = {}
    with tempfile.TemporaryDirectory() as directory, Store.open(f"sqlite:///{directory}/all.db") as store:
        for name, families in SPACES.items():
            study = study_of(name, families)
            launch(store, study, Watcher(lambda text: None, lambda kind, trial: None))
            runs[name] = points(store.trials(study.name))
    dense = next(p.perplexity for p in runs["everything"] if not p.families)
    print(f"dense {dense:.3f}; best perplexity within a share of its bytes, {TRIALS} trials each\n")
    print("| study | hypervolume | " + " | ".join(f"{share:.0%}" for share in BUDGETS) + " |")
    print("|---|---|" + "---|" * len(BUDGETS))
    for name, found in runs.items():
        cells = [f"{p.perplexity:.2f}" if (p := best(found, share)) else "" for share in BUDGETS]
        print(f"| {name} | {hypervolume(found, dense):.3f} | {' | '.join(cells)} |")
    print(f"\n{compared(runs['everything'])}")


def compared(found: Sequence[Point]) -> str:
    """Say where, within one study, candidates of several families beat all of one family."""
    combined = [point for point in found if len(point.families) > 1]
    single = [point for point in found if len(point.families) <= 1]
    lines = [
        "Within the study of everything:",
        "",
        "| bytes | best of one family | best of several | candidate of several |",
        "|---|---|---|---|",
    ]
    for share in BUDGETS:
        one, many = best(single, share), best(combined, share)
        texts = [f"{point.perplexity:.2f}" if point else "none" for point in (one, many)]
        lines.append(f"| {share:.0%} | {' | '.join(texts)} | {many.candidate if many else ''} |")
    wins = [
        f"{share:.0%}"
        for share in BUDGETS
        if (many := best(combined, share))
        and many.perplexity < getattr(best(single, share), "perplexity", math.inf)
    ]
    lines += ["", f"Combinations are better than every single family within {', '.join(wins) or 'no share'}."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
