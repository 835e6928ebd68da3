"""Five trials in two objectives, small enough to work everything out by hand.

Perplexity may be three times the dense model's 10. Trials 0, 1 and 4 are the front, 1 dominates 2,
and 3 is beyond the limit.
"""

from hpo.metric import METRICS, Source
from hpo.space import Candidate
from hpo.trial import Limit, Measurement, Objective, StageTime, Trial

OBJECTIVES = (
    Objective(metric="perplexity", limit=Limit(ratio_to_dense=3.0)),
    Objective(metric="weight_memory"),
)


def measurement(metric: str, value: float, spread: float = 0.0, source: Source | None = None) -> Measurement:
    exact = Source.EXACT if metric == "weight_memory" else Source.MEASURED
    device = "" if exact is Source.EXACT else "cpu:test"
    return Measurement(metric, value, METRICS[metric].unit, source or exact, spread, device=device)


def asked(number: int, origin: str = "sobol") -> Trial:
    candidate = Candidate() if origin == "anchor:dense" else Candidate.of({"factorise": "svd", "k": number})
    return Trial(number, candidate, origin)


def answered(number: int, *found: Measurement, origin: str = "sobol", hours: float = 1.0) -> Trial:
    """Return a trial that completed with these measurements, the `number`-th to finish."""
    running = asked(number, origin).started("worker", at=0.0)
    return running.advanced(StageTime("all", 3600 * hours), found).completed(at=float(number + 1))


def pair(number: int, perplexity: float, weight_memory: float, origin: str = "sobol") -> Trial:
    found = measurement("perplexity", perplexity), measurement("weight_memory", weight_memory)
    return answered(number, *found, origin=origin)


TRIALS = (
    pair(0, 10, 100, "anchor:dense"),
    pair(1, 20, 50),
    pair(2, 25, 60),
    pair(3, 40, 10),
    pair(4, 15, 80),
)
