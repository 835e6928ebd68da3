"""Does training for low rank beat truncating a free model?

The reference model is trained anew, with and without a penalty on how far its matrices are from low
rank, and cut to the same numbers of weights. For a seed every training starts from the same weights and
reads the same text. Fewer steps than the recipe has, so that all of it fits into half an hour.

    python -m benchmarks.bench_spectral_regulariser
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch

from hpo.compress.applying import compressed, healed
from hpo.compress.plan import TrainPlan
from hpo.compress.planner import plan_of, preparations_of
from hpo.compress.profiling import Profiler
from hpo.compress.train import PenaltyKnobs, TrainKnobs
from hpo.compress.trained import trained
from hpo.measure.quality import mean_nll
from hpo.models.dense import DenseModel, load_model
from hpo.models.text import Corpus, Role, read_corpus
from hpo.space import Candidate, Value
from hpo.study import ModelSource, TextSource

STEPS = 500
LONGER = 800
"""Steps that a training without a penalty has time for while the dearest one with takes `STEPS`."""
SEEDS = (0, 1, 2)
WEIGHTS = {"concentration": (3.0, 10.0), "stable_rank": (0.3, 1.0), "nuclear_norm": (1.0, 3.0)}
KEEPS = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)
HEALED_KEEPS = (0.5, 0.4, 0.3)
FINISHES = {
    "plain SVD": ("svd", KEEPS),
    "whitened SVD": ("whitened_svd", KEEPS),
    "whitened SVD, healed for 50 steps": ("whitened_svd", HEALED_KEEPS),
}
TELLING = 0.005
"""Relative change of perplexity below which two models are taken to be alike."""
HEALING: dict[str, Value] = {"heal": "fine_tune", "heal.steps": 50, "heal.learning_rate": 1e-3}

Point = tuple[str, float]
"""Finish and share of the linear weights kept."""


@dataclass(frozen=True)
class Arm:
    """A way to train."""

    method: str
    weight: float = 0.0
    steps: int = STEPS

    def plan(self, seed: int) -> TrainPlan:
        common = {"start": "scratch", "steps": self.steps, "seed": seed}
        if self.method == "plain":
            return TrainPlan(self.method, TrainKnobs.model_validate(common))
        return TrainPlan(self.method, PenaltyKnobs.model_validate(common | {"weight": self.weight}))

    def __str__(self) -> str:
        longer = "" if self.steps == STEPS else f", {self.steps} steps"
        return (f"{self.method} {self.weight:g}" if self.weight else self.method) + longer


PLAIN = Arm("plain")
PLAIN_LONGER = Arm("plain", steps=LONGER)
PENALISED = tuple(Arm(method, weight) for method, weights in WEIGHTS.items() for weight in weights)
Curves = dict[Arm, tuple[dict[Point, float], ...]]
"""Perplexity at each point, one mapping a seed."""


def run() -> Curves:
    """Train every arm with every seed, cut it, and judge it."""
    torch.set_num_threads(1)
    dense = load_model(ModelSource(source="reference"))
    calibration = _text(dense, Role.CALIBRATION, 65_536)
    evaluation = _text(dense, Role.EVALUATION, 32_768)
    curves: Curves = {}
    for arm in (PLAIN, PLAIN_LONGER, *PENALISED):
        bases = [trained(dense, calibration, arm.plan(seed)) for seed in SEEDS]
        curves[arm] = tuple(dict(_curve(base, calibration, evaluation)) for base in bases)
    return curves


def _text(dense: DenseModel, role: Role, tokens: int) -> Corpus:
    return read_corpus(TextSource(reference=True, tokens=tokens), role, dense.tokenizer, dense.context)


def _curve(base: DenseModel, calibration: Corpus, evaluation: Corpus) -> Iterator[tuple[Point, float]]:
    """Yield the perplexity of a model, cut in every way."""
    profiler = Profiler(base, calibration, base.context)
    for finish, (method, keeps) in FINISHES.items():
        for keep in keeps:
            model = base.module
            if keep < 1:
                values: dict[str, Value] = {"factorise": method, "factorise.keep_ratio": keep}
                candidate = Candidate.of(values | (HEALING if "healed" in finish else {}))
                plan = plan_of(profiler.profile(preparations_of(candidate)), candidate)
                model = compressed(profiler, candidate, plan)
                healed(profiler, candidate, plan, model)
            yield (finish, keep), math.exp(mean_nll(model, evaluation))


@dataclass(frozen=True)
class Comparison:
    """The penalties against the free model of the same seeds at one point."""

    keep: float
    gains: tuple[float, ...]
    """For each seed log(perplexity / the free model's) of the penalty that is best on the other seeds."""
    best: Arm
    """On all seeds."""

    @property
    def outcome(self) -> str:
        if max(self.gains) < -TELLING:
            return "better"
        return "worse" if min(self.gains) > TELLING else "undecided"

    def __str__(self) -> str:
        return f"{self.keep:g} ({math.expm1(fmean(self.gains)):+.1%}, {self.best})"


def compare(curves: Curves, free: Arm, point: Point) -> Comparison:
    """Return how penalties do, each seed's chosen without looking at that seed."""

    def change(arm: Arm, seeds: Sequence[int]) -> float:
        return fmean(math.log(curves[arm][s][point] / curves[free][s][point]) for s in seeds)

    def best(seeds: Sequence[int]) -> Arm:
        return min(PENALISED, key=lambda arm: change(arm, seeds))

    everyone = range(len(SEEDS))
    gains = [change(best([s for s in everyone if s != seed]), [seed]) for seed in everyone]
    return Comparison(point[1], tuple(gains), best(everyone))


def verdict(curves: Curves, free: Arm) -> str:
    """Answer the question for one control: a sentence, then where and by how much."""
    answers, details = [], []
    for finish, (_, keeps) in FINISHES.items():
        found = [compare(curves, free, (finish, keep)) for keep in keeps]
        won = [f"{c.keep:g}" for c in found if c.outcome == "better"]
        answers.append(f"with {finish} at {', '.join(won) or 'no share'}")
        parts = {kind: [str(c) for c in found if c.outcome == kind] for kind in _OUTCOMES}
        lines = (f"{kind} at {', '.join(where)}" for kind, where in parts.items() if where)
        details.append(f"- {finish}: {'; '.join(lines)}.")
    head = f"Training for low rank beats truncating {free}: {'; '.join(answers)}."
    return "\n".join([head, "", *details])


_OUTCOMES = ("better", "undecided", "worse")


def table(curves: Curves, finish: str) -> str:
    """Return the mean and standard deviation over seeds, a row an arm and a column a share kept."""
    keeps = FINISHES[finish][1]
    lines = [
        f"| {finish}, perplexity at | " + " | ".join(f"{keep:g}" for keep in keeps) + " |",
        "|---" * (len(keeps) + 1) + "|",
    ]
    for arm, seeds in curves.items():
        cells = []
        for keep in keeps:
            found = [points[finish, keep] for points in seeds]
            cells.append(f"{fmean(found):.2f} ± {stdev(found):.2f}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    curves = run()
    print(
        f"{STEPS} steps, {len(SEEDS)} seeds. The number behind a method is the weight of its penalty; "
        "columns are shares of the linear weights kept; ± is the standard deviation over seeds.\n"
    )
    for finish in FINISHES:
        print(table(curves, finish) + "\n")
    print(
        f"Better and worse mean by more than {TELLING:.1%} in every seed. In brackets: the change of "
        "perplexity by the penalty that is best on the other seeds, so that none is chosen by what it is "
        "judged on, and the one best on all.\n"
    )
    for free in (PLAIN, PLAIN_LONGER):
        print(verdict(curves, free) + "\n")


if __name__ == "__main__":
    main()
