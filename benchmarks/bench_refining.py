"""Does a search find a better front if it spends its last seconds on moves from layer to layer?

The reference model, whitened SVD at 30 to 90 % of the linear weights, uniform or by sensitivity, healed for
0, 25 or 50 steps; perplexity (up to three times the dense model's) against MACs. Both searches have the same
seconds; one refines in the last part of them. Seconds are the wall's, so a busy machine blurs the
comparison; both are run in turn.

    python -m benchmarks.bench_refining
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from hpo.problem import frame, losses, on_front
from hpo.run.launch import Watcher, launch
from hpo.search.descent import Descent
from hpo.store.store import Store
from hpo.study import Study
from hpo.trial import Trial, TrialState

SEEDS = (0, 1, 2)
SECONDS = 80.0
SHARE = 0.4
"""Of the seconds that go into refining."""

DOCUMENT = {
    "version": 1,
    "model": "reference",
    "data": {
        "calibration": {"reference": True, "tokens": 32768},
        "evaluation": {"reference": True, "tokens": 16384},
    },
    "objectives": [{"metric": "perplexity", "limit": {"ratio_to_dense": 3.0}}, "macs"],
    "space": {
        "factorise": "whitened_svd",
        "factorise.keep_ratio": {"type": "float", "low": 0.3, "high": 0.9},
        "factorise.allocation": {"type": "choice", "choices": ["uniform", "sensitivity"]},
        "heal": {"type": "choice", "choices": ["none", "distil"]},
        "heal.steps": {"type": "int", "low": 25, "high": 50, "step": 25, "when": {"heal": "distil"}},
    },
    "run": {"runner": "in_process", "device": "cpu"},
}
"""Of every study here, but for its name, search and budget."""


@dataclass(frozen=True)
class Row:
    """What one search came to."""

    seed: int
    share: float
    trials: int
    hypervolume: float
    moves: int
    better: int
    """Moves that looked better than what they were moved from."""
    promoted: int
    """Moves that were measured."""
    on_front: int
    gain: float
    """Mean share of the divergence from the dense model that those on the front lost, against the trials
    of the search proper that they descend from; 0 where there are none."""


def study(seed: int, share: float, seconds: float) -> Study:
    """Return a study of so many seconds, the last share of which it refines in."""
    search = {"sampler": "bayesian", "seed": seed, "initial": 8, "refine": share}
    budget = {"hours": seconds / 3600}
    return Study.from_mapping(
        {**DOCUMENT, "name": f"refining-{seed}-{share:g}", "search": search, "budget": budget}
    )


def run(seed: int, share: float, seconds: float = SECONDS) -> Row:
    """Search once, from nothing."""
    asked = study(seed, share, seconds)
    with tempfile.TemporaryDirectory() as place, Store.open(f"sqlite:///{place}/study.db") as store:
        launch(store, asked, Watcher(lambda words: None, lambda kind, trial: None))
        return row(asked, store.trials(asked.name))


def row(asked: Study, trials: Sequence[Trial]) -> Row:
    """Return what the trials of a study came to."""
    descent, box = Descent(asked.objectives, trials, ("screen_kl",)), frame(asked.objectives, trials)
    kept = on_front(asked.objectives, trials)
    moved = [trial for trial in trials if descent.parent(trial) is not None]
    front = [t for t, on in zip(trials, kept, strict=True) if on and descent.parent(t) is not None]
    roots = {trial.number: trials[descent.root(trial)] for trial in front}
    gains = [1 - (descent.look(t) or 0.0) / (descent.look(roots[t.number]) or 1.0) for t in front]
    return Row(
        asked.search.seed,
        asked.search.refine,
        len(trials),
        0.0 if box is None else box.hypervolume(losses(asked.objectives, trials)),
        len(moved),
        sum(descent.improves(trial) for trial in moved),
        sum(trial.state is TrialState.COMPLETED for trial in moved),
        len(front),
        mean(gains) if gains else 0.0,
    )


def main() -> None:
    rows = [run(seed, share) for seed in SEEDS for share in (0.0, SHARE)]
    print(f"{SECONDS:g} seconds each; refining in the last {SHARE:.0%} of them or not at all.\n")
    print("| seed | refining | trials | hypervolume | moves | better | measured | on the front | KL less |")
    print("|---" * 9 + "|")
    for r in rows:
        tried = [f"{n}" for n in (r.moves, r.better, r.promoted, r.on_front)] + [f"{r.gain:.1%}"]
        shown = " | ".join(tried if r.share else ["-"] * 5)
        print(f"| {r.seed} | {r.share:.0%} | {r.trials} | {r.hypervolume:.4f} | {shown} |")
    gaps = [
        after.hypervolume - before.hypervolume for before, after in zip(rows[::2], rows[1::2], strict=True)
    ]
    print(f"\nHypervolume gained by refining: {mean(gaps):+.4f} ± {stdev(gaps):.4f}")


if __name__ == "__main__":
    main()
