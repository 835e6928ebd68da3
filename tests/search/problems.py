"""Small search problems with known answers, for tests and benchmarks. No model is involved.

`dtlz2` is the usual four-objective test problem (Deb et al. 2005) with two of its objectives known
exactly. `compression` imitates compressing a model: two families with their own knobs, rounding that
maps many candidates to one plan, healing that may diverge, and a dense anchor outside the space.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hpo.metric import Source
from hpo.problem import Preview, Problem
from hpo.search.sampler import Sampler
from hpo.space import Candidate, Choice, Float, Int, SearchSpace
from hpo.trial import Cause, Limit, Measurement, Objective, Trial, TrialState

Array = NDArray[np.float64]
Outcome = Mapping[str, float] | Cause


@dataclass(frozen=True)
class Toy:
    """A problem together with the truth that trials would find."""

    problem: Problem
    truth: Callable[[Candidate], Outcome]
    anchors: tuple[Candidate, ...] = ()

    def trial(
        self,
        number: int,
        candidate: Candidate,
        origin: str = "test",
        state: TrialState = TrialState.COMPLETED,
    ) -> Trial:
        """Return the trial of a candidate, FAILED where the truth says so."""
        plan = self.problem.preview([candidate]).plans[0]
        trial = Trial(number, candidate, origin, plan)
        if state is TrialState.WAITING:
            return trial
        trial = trial.started("worker", 0.0)
        if state is TrialState.RUNNING:
            return trial
        outcome = self.truth(candidate)
        if isinstance(outcome, Cause):
            return trial.failed(outcome, "the truth says so", 1.0)
        measured = [Measurement(name, value, "", Source.MEASURED) for name, value in outcome.items()]
        return replace(trial, measurements=tuple(measured)).completed(1.0)

    def start(self) -> list[Trial]:
        """Return the anchors' trials, the dense model first."""
        names = ["anchor:dense"] + ["anchor"] * len(self.anchors)
        return [self.trial(i, c, name) for i, (c, name) in enumerate(zip(self.anchors, names, strict=False))]

    def search(self, sampler: Sampler, trials: int, seed: int, batch: int = 1) -> list[Trial]:
        """Return the history after `trials` trials, anchors not counted."""
        history = self.start()
        end = len(history) + trials
        while len(history) < end:
            asked = sampler.ask(self.problem, history, min(batch, end - len(history)), seed)
            if not asked:
                break
            history += [self.trial(len(history) + i, candidate) for i, candidate in enumerate(asked)]
        return history

    def hypervolume(self, history: Sequence[Trial]) -> float:
        """Return the share of the problem's own box that the completed trials dominate."""
        frame = self.problem.frame(history)
        assert frame is not None, "anchors or limits fix the box of every toy"
        done = [trial for trial in history if trial.state is TrialState.COMPLETED]
        return frame.hypervolume(self.problem.losses(done))


def counted(toy: Toy, values: int = 9) -> Toy:
    """Return a toy of the same truth whose ranges hold so many values each."""
    parameters = {
        name: Choice(choices=_spread(p, values), when=p.when) if isinstance(p, Float) else p
        for name, p in toy.problem.space.parameters.items()
    }
    return replace(toy, problem=replace(toy.problem, space=SearchSpace(parameters)))


def _spread(parameter: Float, values: int) -> tuple[float, ...]:
    return tuple(parameter.from_unit(i / (values - 1)) for i in range(values))


def plan_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def plain(
    space: SearchSpace,
    objectives: Sequence[Objective],
    exact: Sequence[str],
    truth: Callable[[Candidate], Mapping[str, float]],
) -> Toy:
    """Return a toy in which every candidate is a plan of its own, and no feature is known."""

    def preview(candidates: Sequence[Candidate]) -> Preview:
        rows = [[truth(candidate)[name] for name in exact] for candidate in candidates]
        return Preview(
            exact=np.array(rows).reshape(len(candidates), len(exact)),
            features=np.empty((len(candidates), 0)),
            plans=tuple(plan_of(candidate.items) for candidate in candidates),
            refusals=("",) * len(candidates),
        )

    return Toy(Problem(space, tuple(objectives), tuple(exact), preview), truth)


def dtlz2(width: int = 6, exact: tuple[str, ...] = ("weight_memory", "macs")) -> Toy:
    """DTLZ2 with four objectives on [0, 1]^width; the front is the unit sphere's positive part."""
    names = [f"x{i}" for i in range(width)]
    metrics = ("perplexity", "prefill_latency", "weight_memory", "macs")

    def truth(candidate: Candidate) -> dict[str, float]:
        x = [float(candidate.values[name]) for name in names]
        g = 1 + sum((v - 0.5) ** 2 for v in x[3:])
        a, b, c = (v * math.pi / 2 for v in x[:3])
        values = (
            g * math.cos(a) * math.cos(b) * math.cos(c),
            g * math.cos(a) * math.cos(b) * math.sin(c),
            g * math.cos(a) * math.sin(b),
            g * math.sin(a),
        )
        return dict(zip(metrics, values, strict=True))

    space = SearchSpace.of((name, Float(low=0.0, high=1.0)) for name in names)
    limited = [Objective(metric=name, limit=Limit(value=1.1)) for name in metrics]
    return plain(space, limited, exact, truth)


def grid(constant: bool = False) -> Toy:
    """Nine candidates, one measured and one exact objective that pull apart, or nothing to tell them by."""
    space = SearchSpace.of([("a", Choice(choices=(1, "1", "one"))), ("b", Int(low=1, high=3))])

    def truth(candidate: Candidate) -> dict[str, float]:
        b = float(candidate.values["b"])
        return {"perplexity": 10 / b, "weight_memory": b} if not constant else dict.fromkeys(_TWO, 1.0)

    return plain(space, [Objective(metric=name) for name in _TWO], _TWO[1:], truth)


_TWO = ("perplexity", "weight_memory")


def line(metrics: Sequence[str], exact: Sequence[str]) -> Toy:
    """One number and any objectives, each best at a point of its own."""
    space = SearchSpace.of([("x", Float(low=0.0, high=1.0)), ("fixed", Choice(choices=("only",)))])

    def truth(candidate: Candidate) -> dict[str, float]:
        x = float(candidate.values["x"])
        return {name: 1 + (x - i / len(metrics)) ** 2 for i, name in enumerate(metrics)}

    return plain(space, [Objective(metric=name) for name in metrics], exact, truth)


_LAYERS, _WIDTH = 8, 128


def compression() -> Toy:
    """Two ways to factorise eight square layers, with or without healing; some healing diverges."""
    space = SearchSpace.of(
        [
            ("factorise", Choice(choices=("svd", "mpo"))),
            ("factorise.keep_ratio", Float(low=0.1, high=0.9, when={"factorise": ("svd",)})),
            ("factorise.temperature", Float(low=0.0, high=2.0, when={"factorise": ("svd",)})),
            ("factorise.bond", Int(low=4, high=128, log=True, when={"factorise": ("mpo",)})),
            ("factorise.sites", Choice(choices=(2, 3), when={"factorise": ("mpo",)})),
            ("heal", Choice(choices=("none", "fine_tune"))),
            ("heal.rate", Float(low=1e-5, high=1e-2, log=True, when={"heal": ("fine_tune",)})),
            ("heal.steps", Int(low=0, high=200, step=50, when={"heal": ("fine_tune",)})),
        ]
    )
    objectives = (
        Objective(metric="perplexity", limit=Limit(ratio_to_dense=4.0)),
        Objective(metric="prefill_latency"),
        Objective(metric="weight_memory", limit=Limit(ratio_to_dense=0.95)),
        Objective(metric="macs"),
    )
    anchors = (
        Candidate(),
        Candidate.of({"factorise": "svd", "factorise.keep_ratio": 0.95}),
        Candidate.of({"factorise": "svd", "factorise.keep_ratio": 0.05}),
    )
    exact = ("weight_memory", "macs")
    return Toy(Problem(space, objectives, exact, _preview_compression), _measure_compression, anchors)


def _ranks(candidate: Candidate) -> tuple[int, ...]:
    """Return the rank of each layer; the dense model keeps them all."""
    values = candidate.values
    if values.get("factorise") == "mpo":
        return (int(values["factorise.bond"]),) * _LAYERS
    if "factorise" not in values:
        return (_WIDTH,) * _LAYERS
    keep = float(values["factorise.keep_ratio"])
    tilt = float(values.get("factorise.temperature", 0.0))
    weights = [1 + tilt * (i / (_LAYERS - 1) - 0.5) / 2 for i in range(_LAYERS)]
    return tuple(max(1, min(round(keep * _WIDTH / 2 * w), _WIDTH // 2)) for w in weights)


def _parameters(candidate: Candidate) -> float:
    if candidate.is_dense:
        return float(_LAYERS * _WIDTH**2)
    if candidate.values["factorise"] == "mpo":
        bond, sites = int(candidate.values["factorise.bond"]), int(candidate.values["factorise.sites"])
        return float(_LAYERS * (2 * 128 * bond if sites == 2 else 50 * bond + 25 * min(bond, 25) * bond))
    return float(sum(2 * _WIDTH * rank for rank in _ranks(candidate)))


def _preview_compression(candidates: Sequence[Candidate]) -> Preview:
    dense = _LAYERS * _WIDTH**2
    kept = np.array([_parameters(candidate) for candidate in candidates])
    mpo = np.array([candidate.values.get("factorise") == "mpo" for candidate in candidates])
    refused = kept > 1.5 * dense
    exact = np.column_stack([4 * kept, kept * np.where(mpo, 2.0, 1.0)])
    heal = [sorted((k, v) for k, v in c.items if k.startswith("heal")) for c in candidates]
    kinds = [(c.values.get("factorise"), c.values.get("factorise.sites")) for c in candidates]
    plans = [
        "" if no else plan_of(kind, _ranks(c), extra)
        for c, no, extra, kind in zip(candidates, refused, heal, kinds, strict=True)
    ]
    return Preview(
        exact=np.where(refused[:, None], np.nan, exact),
        features=np.where(refused, np.nan, kept / dense)[:, None],
        plans=tuple(plans),
        refusals=tuple("larger than the dense model" if no else "" for no in refused),
    )


def _measure_compression(candidate: Candidate) -> Outcome:
    values = candidate.values
    exact = dict(
        zip(("weight_memory", "macs"), _preview_compression([candidate]).exact[0].tolist(), strict=True)
    )
    kept = _parameters(candidate) / (_LAYERS * _WIDTH**2)
    loss = 1.2 * (1 - min(kept, 1.0)) ** 3
    tilt = float(values.get("factorise.temperature", 0.0))
    loss *= 1 + 0.3 * (tilt - 0.8) ** 2 if values.get("factorise") == "svd" else 0.8
    if values.get("heal") == "fine_tune":
        rate, steps = math.log10(float(values["heal.rate"])), int(values["heal.steps"])
        if rate > -2.5 and steps > 100:
            return Cause.NOT_A_NUMBER
        loss *= 1 - 0.6 * (steps / 200) * math.exp(-((rate + 3.5) ** 2))
    latency = 1 + 4 * exact["macs"] / (_LAYERS * _WIDTH**2) * (1.3 if values.get("factorise") == "mpo" else 1)
    noise = np.random.default_rng(int(candidate.key[:8], 16)).normal(size=2)
    return {
        "perplexity": 20 * math.exp(3 * loss + 0.002 * noise[0]),
        "prefill_latency": latency * math.exp(0.01 * noise[1]),
        **exact,
    }
