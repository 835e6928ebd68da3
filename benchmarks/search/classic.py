"""Test problems of the literature as simulations: every trial completes, in one second."""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.search.simulation import Answer, Simulation
from hpo.problem import Preview, Problem
from hpo.space import Candidate, Float, SearchSpace
from hpo.trial import Limit, Objective, StageTime

METRICS = ("perplexity", "prefill_latency", "weight_memory", "macs")
"""The names under which the problems' objectives go, in order: all of them are better when smaller."""

Formula = Callable[[Sequence[float]], Sequence[float]]


def dtlz2(width: int = 6, exact: tuple[str, ...] = ("weight_memory", "macs")) -> Simulation:
    """Return DTLZ2 (Deb et al. 2005) with four objectives on [0, 1]^width, two of them known exactly.

    Its front is the positive part of the unit sphere, and the reference 1.1 in every objective. `best` is
    analytic: of the box all is dominated but the sixteenth of the unit ball, of volume pi^2 / 2.
    """

    def formula(x: Sequence[float]) -> tuple[float, ...]:
        g = 1 + sum((v - 0.5) ** 2 for v in x[3:])
        a, b, c = (v * math.pi / 2 for v in x[:3])
        return (
            g * math.cos(a) * math.cos(b) * math.cos(c),
            g * math.cos(a) * math.cos(b) * math.sin(c),
            g * math.cos(a) * math.sin(b),
            g * math.sin(a),
        )

    best = 1 - math.pi**2 / 32 / 1.1**4
    return _simulation("dtlz2", [(0.0, 1.0)] * width, [1.1] * 4, formula, exact, best)


def zdt1(width: int = 8, reference: float = 11.0) -> Simulation:
    """Return ZDT1 (Zitzler et al. 2000): two objectives on [0, 1]^width, the front y = 1 - sqrt(x).

    The reference is BoTorch's. `best` is analytic: all of the box but the third under the front.

    Raises:
        ValueError: the reference is below 1 and cuts the front.
    """
    if reference < 1:
        raise ValueError(f"the reference {reference:g} cuts the front of ZDT1, which reaches to 1")

    def formula(x: Sequence[float]) -> tuple[float, ...]:
        g = 1 + 9 * sum(x[1:]) / (len(x) - 1)
        return x[0], g * (1 - math.sqrt(x[0] / g))

    best = 1 - 1 / 3 / reference**2
    return _simulation("zdt1", [(0.0, 1.0)] * width, [reference] * 2, formula, (), best)


def vehicle_safety() -> Simulation:
    """Return the vehicle crash problem (Liao et al. 2008; Tanabe and Ishibuchi 2020): 5 inputs, 3 objectives.

    `best` is the hypervolume that BoTorch publishes, of the front of Tanabe and Ishibuchi: best known.
    """
    return _of_botorch("vehicle_safety", "VehicleSafety")


def car_side_impact() -> Simulation:
    """Return the car side impact problem (Jain and Deb 2014; Tanabe and Ishibuchi 2020): 7 and 4.

    Its fourth objective is the sum of broken constraints. `best` is the hypervolume that BoTorch
    publishes, of the front of Tanabe and Ishibuchi: best known.
    """
    return _of_botorch("car_side_impact", "CarSideImpact")


def _of_botorch(name: str, kind: str) -> Simulation:
    import torch  # like BoTorch it takes seconds to import

    with warnings.catch_warnings():
        # linear_operator decorates two functions with what torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
        from botorch.test_functions import multi_objective

    function = getattr(multi_objective, kind)(negate=False)  # so that smaller is better

    def formula(x: Sequence[float]) -> list[float]:
        found: list[float] = function.evaluate_true(torch.tensor([x], dtype=torch.float64))[0].tolist()
        return found

    # Public attributes hold the reference for maximising, whatever `negate` says.
    reference = [abs(float(side)) for side in function.ref_point]
    return _simulation(name, function._bounds, reference, formula, (), function.max_hv / math.prod(reference))


def _simulation(
    name: str,
    ranges: Sequence[tuple[float, float]],
    reference: Sequence[float],
    formula: Formula,
    exact: tuple[str, ...],
    best: float,
) -> Simulation:
    """Return a problem in which every candidate is a plan of its own, and no feature is known.

    Limits at the reference fix the box; its ideal is 0 for want of anchors, as no loss is negative.
    """
    names = [f"x{i}" for i in range(len(ranges))]
    metrics = METRICS[: len(reference)]
    space = SearchSpace.of((key, Float(low=a, high=b)) for key, (a, b) in zip(names, ranges, strict=True))

    def values(candidate: Candidate) -> Mapping[str, float]:
        point = [float(candidate.values[key]) for key in names]
        return dict(zip(metrics, formula(point), strict=True))

    def preview(candidates: Sequence[Candidate]) -> Preview:
        known = [[found[key] for key in exact] for found in map(values, candidates)] if exact else []
        return Preview(
            exact=np.array(known, dtype=float).reshape(len(candidates), len(exact)),
            features=np.empty((len(candidates), 0)),
            plans=tuple(hashlib.sha256(c.key.encode()).hexdigest()[:12] for c in candidates),
            refusals=("",) * len(candidates),
        )

    objectives = tuple(
        Objective(metric=key, limit=Limit(value=side)) for key, side in zip(metrics, reference, strict=True)
    )
    return Simulation(
        name,
        Problem(space, objectives, exact, preview),
        lambda candidate: Answer(values(candidate), (StageTime("measure", 1.0),)),
        anchors=(),
        best=best,
    )
