"""Whoever takes part in a comparison: one search, asked for a candidate and told what became of it."""

import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

import hpo
from benchmarks.search import ablation, peers
from benchmarks.search.ablation import ALTERATIONS, Altered
from benchmarks.search.peers import places
from benchmarks.search.sources import digest, reached
from hpo import registry
from hpo.errors import NotFound, did_you_mean
from hpo.problem import Problem
from hpo.search.earlier import EarlierStudy
from hpo.search.sampler import Sampler
from hpo.search.warm_start import WarmSampler, WarmStart
from hpo.space import Candidate
from hpo.trial import Trial


class Exhausted(Exception):
    """A searcher has nothing more to propose."""


class Searcher(Protocol):
    """One search of one problem from one seed."""

    def ask(self) -> Candidate:
        """Return what to try next.

        Raises:
            Exhausted: there is nothing more to try.
        """
        ...

    def tell(self, trial: Trial) -> None:
        """Learn of a finished trial: of an anchor before the first `ask`, else of what was asked last.

        A candidate that is refused comes back as a FAILED trial without a plan.
        """
        ...


Make = Callable[[Problem, int, int], Searcher]
"""Problem, seed and number of candidates to be drawn before a model is trusted."""

PEERS: Mapping[str, tuple[str, str]] = {
    "random": ("benchmarks.search.peers.uniform:Uniform", "numpy"),
    "optuna/nsga2": ("benchmarks.search.peers.optuna_nsga2:Nsga2", "optuna"),
    "optuna/nsga2_small": ("benchmarks.search.peers.optuna_nsga2:SmallNsga2", "optuna"),
    "optuna/tpe": ("benchmarks.search.peers.optuna_tpe:Tpe", "optuna"),
    "optuna/tpe_grouped": ("benchmarks.search.peers.optuna_tpe:GroupedTpe", "optuna"),
    "optuna/gp": ("benchmarks.search.peers.optuna_gp:Gp", "optuna"),
    "botorch/qlognehvi": ("benchmarks.search.peers.qlognehvi:QLogNehvi", "botorch"),
    "botorch/qlognehvi_pool": ("benchmarks.search.peers.qlognehvi:QLogNehviPool", "botorch"),
    "smac": ("benchmarks.search.peers.smac_parego:SmacParEgo", "smac"),
    "ax": ("benchmarks.search.peers.ax_client:AxClient", "ax-platform"),
}
"""Name -> (``module:Class``, the distribution whose sampler it is). No sampler of ours has such a name."""


@dataclass
class Ours:
    """One of the product's samplers, handed its whole history each time."""

    problem: Problem
    seed: int
    sampler: Sampler
    history: list[Trial] = field(default_factory=list)

    def ask(self) -> Candidate:
        asked = self.sampler.ask(self.problem, self.history, 1, self.seed)
        if not asked:
            raise Exhausted("the sampler has no candidate left")
        return asked[0]

    def tell(self, trial: Trial) -> None:
        self.history.append(trial)


def make(
    name: str, problem: Problem, seed: int, initial: int, earlier: tuple[EarlierStudy, ...] = ()
) -> Searcher:
    """Return a new search by the sampler or peer of this name; only samplers are told of earlier studies.

    Raises:
        ImportError: the peer's package is not installed.
        NotFound: there is neither a sampler nor a peer of this name.
    """
    _check(name)
    if name in PEERS:
        kind = PEERS[name][0].partition(":")[2]
        return cast(Make, getattr(_module(name), kind))(problem, seed, initial)
    sampler = _sampler(name, initial)
    if earlier:
        sampler = WarmSampler(sampler, WarmStart(problem, earlier), initial)
    return Ours(problem, seed, sampler)


def _sampler(name: str, initial: int) -> Sampler:
    """Return a sampler of the product, or one with something off."""
    if name not in ALTERATIONS:
        return cast(Sampler, registry.load("sampler", name)(initial=initial))
    alteration = ALTERATIONS[name]
    return Altered(_sampler(ablation.WHOLE, alteration.start * initial), alteration)


def names() -> tuple[str, ...]:
    """Return every name that `make` knows, the product's samplers first."""
    return (*registry.names("sampler"), *PEERS, *ALTERATIONS)


def missing(name: str) -> str:
    """Return why a searcher cannot take part here, empty if it can.

    Raises:
        NotFound: there is neither a sampler nor a peer of this name.
    """
    _check(name)
    if name in PEERS:
        try:
            _module(name)
        except ImportError as error:
            return f"{error}; install {PEERS[name][1]}"
    return ""


def version_of(name: str, besides: Sequence[str] = ()) -> str:
    """Return what a searcher's results hold for: its package's version and a digest of our code of it.

    For one of our samplers that code is its module and those that it comes to import, and with something off
    what takes it off; for a peer, the modules of its class and of those above it. `besides`: modules of
    `hpo.search` that the race itself makes use of.

    Raises:
        PackageNotFoundError: the peer's package is not installed.
        NotFound: there is neither a sampler nor a peer of this name.
    """
    _check(name)
    if besides:
        folder = Path(str(import_module("hpo.search").__file__)).parent
        used = {path for module in besides for path in reached(folder / f"{module}.py", "hpo.search")}
        return f"{version_of(name)}, {digest(sorted(used))}"
    if name in PEERS:
        package = PEERS[name][1]
        kind = getattr(_module(name), PEERS[name][0].partition(":")[2])
        sources = {
            Path(inspect.getfile(part)) for part in kind.__mro__ if part.__module__.startswith(peers.__name__)
        }
        return f"{package} {version(package)}, {_digest([*sorted(sources), Path(places.__file__)])}"
    whole = ablation.WHOLE if name in ALTERATIONS else name
    module = import_module(registry.load("sampler", whole).__module__)
    ours = reached(Path(str(module.__file__)), module.__name__.rpartition(".")[0])
    return (
        f"hpo {hpo.__version__}, {digest((*ours, Path(ablation.__file__)) if name in ALTERATIONS else ours)}"
    )


def _module(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say of each other when they are loaded
        return import_module(PEERS[name][0].partition(":")[0])


def _digest(sources: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def _check(name: str) -> None:
    if name not in names():
        raise NotFound(f"no searcher {name!r}", did_you_mean(name, names()))
