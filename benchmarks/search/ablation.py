"""Our search with one thing off: what each of its parts brings.

Nothing in the product knows of this. A part is taken away from outside, by handing the search a problem that
knows less, or by putting something plainer in the place of one function while a candidate is chosen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np

from hpo.problem import Preview, Problem
from hpo.search.botorch_import import importing_botorch
from hpo.search.sampler import Sampler
from hpo.space import Candidate
from hpo.trial import Trial

WHOLE = "bayesian"
"""The searcher of which something is taken away."""

Change = Callable[[Problem], Problem]


def _as_it_is(problem: Problem) -> Problem:
    return problem


@dataclass(frozen=True)
class Alteration:
    """One thing off.

    Raises:
        ValueError: more or less than one thing is.
    """

    label: str
    """What is off, for a table."""
    problem: Change = _as_it_is
    """How the whole search sees the problem."""
    model: Change = _as_it_is
    """How the search sees it once it has a model; the start is as it was."""
    rounds: int | None = None
    """Of local search around the best."""
    scale: Callable[..., Any] | None = None
    """What makes a `hpo.search.outcomes.Scale`."""
    start: int = 1
    """How many times as long the start is."""

    def __post_init__(self) -> None:
        off = [self.problem is not _as_it_is, self.model is not _as_it_is]
        off += [self.rounds is not None, self.scale is not None, self.start != 1]
        if sum(off) != 1:
            raise ValueError(f"{self.label!r} alters {sum(off)} things; an ablation alters one")

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the plainer functions in place, and the others back afterwards."""
        with importing_botorch():
            from hpo.search import modelled
        from hpo.search.outcomes import Scale

        propose = modelled.propose

        def informed_less(problem: Problem, *rest: Any, **named: Any) -> list[Candidate]:
            return propose(self.model(problem), *rest, **named)

        with ExitStack() as stack:
            if self.model is not _as_it_is:
                stack.enter_context(patch.object(modelled, "propose", informed_less))
            if self.rounds is not None:
                stack.enter_context(patch.object(modelled, "_ROUNDS", self.rounds))
            if self.scale is not None:
                stack.enter_context(patch.object(Scale, "of", self.scale))
            yield


@dataclass
class Altered:
    """A sampler with one thing off."""

    sampler: Sampler
    alteration: Alteration

    def __post_init__(self) -> None:
        self.summary = f"{self.sampler.summary}; {self.alteration.label}"

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        """Return what the sampler protocol says."""
        with self.alteration.applied():
            return self.sampler.ask(self.alteration.problem(problem), history, count, seed)


def without_features(problem: Problem) -> Problem:
    """Return the problem with plans of which nothing is known but their exact losses."""
    return _previewing(problem, lambda p: replace(p, features=np.empty((len(p.plans), 0))))


def with_nothing_exact(problem: Problem) -> Problem:
    """Return the problem with every objective to be measured. Exact losses are no inputs of models either,
    for they would give themselves away."""
    blind = _previewing(problem, lambda p: replace(p, exact=np.empty((len(p.plans), 0))))
    return replace(blind, exact=())


def without_guesses(problem: Problem) -> Problem:
    """Return the problem with nothing to begin by, so that the start is quasi-random."""
    return _previewing(problem, lambda p: replace(p, guesses=None))


def _previewing(problem: Problem, change: Callable[[Preview], Preview]) -> Problem:
    return replace(problem, preview=lambda candidates: change(problem.preview(candidates)))


def plain_scale(losses: np.ndarray[Any, np.dtype[np.float64]], *_: float) -> Any:
    """Return the scale that takes off the mean and divides by the spread, and nothing more."""
    from hpo.search.outcomes import Scale

    spread = float(losses.std())
    return Scale(
        log=False,
        edge=float("inf"),
        width=1.0,
        centre=float(losses.mean()),
        spread=spread if spread > 0 else 1.0,
    )


ALTERATIONS: Mapping[str, Alteration] = {
    f"{WHOLE}/no_features": Alteration("models do not see what plans are like", model=without_features),
    f"{WHOLE}/exact_modelled": Alteration(
        "exact objectives are modelled like the others", model=with_nothing_exact
    ),
    f"{WHOLE}/no_promising_start": Alteration("the start is all quasi-random", problem=without_guesses),
    f"{WHOLE}/plain_outcomes": Alteration("outcomes are standardised and nothing more", scale=plain_scale),
    f"{WHOLE}/no_local_search": Alteration("no local search around the best of the first look", rounds=0),
    f"{WHOLE}/start_16": Alteration("the start is twice as long", start=2),
}
"""By the name of the searcher. Where nothing fails, as in the recorded table, the model of failures has no
part, and so there is none without it."""
