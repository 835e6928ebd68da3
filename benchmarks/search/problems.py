"""The simulations by name. Each is made where it runs: its truth cannot cross to another process."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from benchmarks.search.simulation import Simulation
from hpo.errors import NotFound, did_you_mean

PROBLEMS: Mapping[str, str] = {
    "recorded": "benchmarks.search.recorded:recorded",
    "recorded_warm": "benchmarks.search.recorded_warm:warm",
    "recorded_reversed": "benchmarks.search.recorded_warm:reversed_order",
    "recorded_shuffled": "benchmarks.search.recorded_warm:shuffled",
    "dtlz2": "benchmarks.search.classic:dtlz2",
    "zdt1": "benchmarks.search.classic:zdt1",
    "vehicle_safety": "benchmarks.search.classic:vehicle_safety",
    "car_side_impact": "benchmarks.search.classic:car_side_impact",
}
"""Name -> ``module:function`` that takes nothing and returns the simulation of that name."""


def is_warm(name: str) -> bool:
    """Whether our samplers are told of earlier studies in this problem."""
    return PROBLEMS.get(name, "").startswith("benchmarks.search.recorded_warm:")


def load(name: str) -> Simulation:
    """Return a simulation by name.

    Raises:
        NotFound: there is none of this name.
    """
    if name not in PROBLEMS:
        raise NotFound(f"no problem {name!r}", did_you_mean(name, PROBLEMS))
    module, _, function = PROBLEMS[name].partition(":")
    return cast(Callable[[], Simulation], getattr(import_module(module), function))()
