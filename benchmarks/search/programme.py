"""Which races are run: problems, searchers, seeds and trials, so that all of it takes a known time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.search.ablation import ALTERATIONS, WHOLE
from benchmarks.search.race import Key, Run

CLASSIC = ("dtlz2", "zdt1", "vehicle_safety", "car_side_impact")
QUICK = ("random", "optuna/nsga2", "optuna/nsga2_small", "optuna/tpe", "optuna/tpe_grouped", "smac")
"""Peers that can afford every problem and every seed."""
GP_PEERS = ("optuna/gp", "botorch/qlognehvi", "botorch/qlognehvi_pool", "ax")
"""Peers that learn by Gaussian processes, as ours does."""

START_S = 4.0
"""CPU seconds of a process before its race begins, about."""
CPU_S: Mapping[str, float] = {
    WHOLE: 0.6,
    "smac": 0.25,
    "optuna/tpe_grouped": 0.03,
    "optuna/gp": 1.2,
    "botorch/qlognehvi": 4.0,
    "botorch/qlognehvi_pool": 3.0,
    "ax": 31.0,
}
"""CPU seconds a trial, about; next to none where nothing is said. Ours stands for all that are made of it."""


@dataclass(frozen=True)
class Races:
    """One problem, some searchers, and how often and how long each searches.

    Raises:
        ValueError: a count is below one.
    """

    problem: str
    searchers: tuple[str, ...]
    seeds: int
    trials: int
    initial: int = 8
    stopping: bool = False

    def __post_init__(self) -> None:
        if min(self.seeds, self.trials, self.initial, len(self.searchers)) < 1:
            raise ValueError(f"races of {self.problem} without a seed, a trial, a start or a searcher")

    def keys(self, version: Callable[[str, str, bool], str]) -> Iterator[Key]:
        """Yield the key of each; `version` is told problem, searcher and stopping."""
        for name in self.searchers:
            about = version(self.problem, name, self.stopping)
            for seed in range(self.seeds):
                yield Key(self.problem, name, about, seed, self.trials, self.initial, self.stopping)

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """Return those of some runs that are of these races, in their order, whatever the version."""
        known = {_bare(run.key): run for run in runs}
        wanted = (_bare(key) for key in self.keys(_any))
        return [known[key] for key in wanted if key in known]

    @property
    def cpu_seconds(self) -> float:
        """About how long they take on one core."""
        return sum(cpu_seconds(key) for key in self.keys(_any))


@dataclass(frozen=True)
class Programme:
    """All the races of one report."""

    comparison: tuple[Races, ...]
    """Ours and the peers."""
    stopping: Races
    """Ours, with trials stopped; on a problem and seeds of the comparison."""
    ablation: Races
    """Ours with one thing off each."""
    warm: Races
    """Ours with the study of another model at hand, as long as the ablation."""

    @property
    def all(self) -> tuple[Races, ...]:
        return (*self.comparison, self.stopping, self.ablation, self.warm)

    @property
    def problems(self) -> tuple[str, ...]:
        """Those of the comparison, each once."""
        return tuple(dict.fromkeys(races.problem for races in self.comparison))

    @property
    def searchers(self) -> tuple[str, ...]:
        """Every one that takes part, each once."""
        return tuple(dict.fromkeys(name for races in self.all for name in races.searchers))

    @property
    def cpu_seconds(self) -> float:
        """About how long all of it takes on one core."""
        return sum(races.cpu_seconds for races in self.all)

    def compared(self, problem: str) -> list[Races]:
        """Return the races of the comparison that are of one problem."""
        return [races for races in self.comparison if races.problem == problem]


def _any(*_: object) -> str:
    """Return no version at all."""
    return ""


def cpu_seconds(key: Key) -> float:
    """Return about how long a race takes on one core."""
    name = WHOLE if key.searcher in ALTERATIONS else key.searcher
    return START_S + key.trials * CPU_S.get(name, 0.0)


def _bare(key: Key) -> tuple[str, str, int, int, int, bool]:
    return key.problem, key.searcher, key.seed, key.trials, key.initial, key.stopping


FULL = Programme(
    comparison=(
        Races("recorded", (WHOLE, *QUICK, "optuna/gp"), seeds=10, trials=100),
        # It has no gradient to follow there, and is its own variant with a pool.
        Races("recorded", ("botorch/qlognehvi",), seeds=3, trials=100),
        Races("recorded", ("ax",), seeds=1, trials=50),
        *(Races(problem, (WHOLE, *QUICK, "optuna/gp"), seeds=10, trials=50) for problem in CLASSIC),
        *(Races(problem, ("botorch/qlognehvi",), seeds=2, trials=50) for problem in CLASSIC),
        Races("zdt1", ("botorch/qlognehvi_pool",), seeds=2, trials=50),
    ),
    stopping=Races("recorded", (WHOLE,), seeds=10, trials=100, stopping=True),
    ablation=Races("recorded", tuple(ALTERATIONS), seeds=5, trials=50),
    warm=Races("recorded_warm", (WHOLE,), seeds=5, trials=50),
)
"""Two hours on two cores. Ten seeds for all that can afford them; what thinks for seconds a trial has fewer
seeds, trials or problems, and its tables say so."""

SHORT = Programme(
    comparison=(
        Races("recorded", (WHOLE, *QUICK), seeds=3, trials=50),
        Races("zdt1", (WHOLE, *QUICK), seeds=3, trials=30),
        Races("zdt1", ("optuna/gp",), seeds=2, trials=30),
    ),
    stopping=Races("recorded", (WHOLE,), seeds=3, trials=50, stopping=True),
    ablation=Races("recorded", tuple(ALTERATIONS), seeds=2, trials=25),
    warm=Races("recorded_warm", (WHOLE,), seeds=2, trials=25),
)
"""Ten minutes on two cores: does all of it work, and is anything far off?"""
