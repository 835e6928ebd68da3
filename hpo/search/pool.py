"""Candidates that may be proposed: new, allowed, and within every exact limit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hpo.problem import Problem
from hpo.search.generate import everything, sobol
from hpo.search.history import excess
from hpo.space import Candidate
from hpo.trial import Trial

Array = NDArray[np.float64]

_CHUNK = 64
_PATIENCE = 8192
"""Points drawn before a space that cannot be counted is taken for exhausted."""
_COUNTABLE = 2048
"""Spaces up to this size are looked through one by one."""


@dataclass(frozen=True)
class Pool:
    """N candidates with what is known exactly of each."""

    candidates: tuple[Candidate, ...]
    exact: Array
    """(N, E) losses of the objectives in ``problem.exact``."""
    features: Array
    """(N, F)."""
    plans: tuple[str, ...]
    guesses: Array
    """(N, G)."""
    shared: tuple[str, ...]
    """Keys of work that is done once for all that share it; empty where there is none."""

    @classmethod
    def of(cls, problem: Problem, candidates: Sequence[Candidate]) -> Self:
        """Preview `candidates` and leave out those that are refused."""
        preview = problem.preview(candidates)
        none = np.empty((len(candidates), 0))
        found = cls(
            tuple(candidates),
            preview.exact,
            preview.features,
            preview.plans,
            none if preview.guesses is None else preview.guesses,
            preview.shared or ("",) * len(candidates),
        )
        known = np.array([bool(plan) for plan in preview.plans], dtype=bool)
        return found.take(np.flatnonzero(known & np.isfinite(preview.exact).all(axis=1)))

    def __len__(self) -> int:
        return len(self.candidates)

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> Self:
        """Return the pool of these rows, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        return replace(
            self,
            candidates=tuple(self.candidates[i] for i in index),
            exact=self.exact[index],
            features=self.features[index],
            plans=tuple(self.plans[i] for i in index),
            guesses=self.guesses[index],
            shared=tuple(self.shared[i] for i in index),
        )

    def first(self, count: int) -> Self:
        """Return the pool of the first `count`, or of all there are."""
        return self.take(range(min(count, len(self))))

    def joined(self, other: Self) -> Self:
        """Return this pool followed by `other`."""
        if not len(self) or not len(other):
            return other if not len(self) else self
        return replace(
            self,
            candidates=self.candidates + other.candidates,
            exact=np.vstack([self.exact, other.exact]),
            features=np.vstack([self.features, other.features]),
            plans=self.plans + other.plans,
            guesses=np.vstack([self.guesses, other.guesses]),
            shared=self.shared + other.shared,
        )


def previewed(problem: Problem, trials: Sequence[Trial]) -> tuple[list[Trial], Pool]:
    """Return the trials whose candidate can be previewed, and their candidates in the same order."""
    pool = Pool.of(problem, [trial.candidate for trial in trials])
    kept = set(pool.candidates)
    return [trial for trial in trials if trial.candidate in kept], pool


@dataclass(frozen=True)
class Gate:
    """Lets through what may be proposed next; made once an ask, from the history."""

    problem: Problem
    bounds: Array
    """(E,) upper bounds on the exact losses."""
    candidates: frozenset[Candidate]
    """Those of the history, whatever became of them."""
    plans: frozenset[str]

    @classmethod
    def of(cls, problem: Problem, history: Sequence[Trial]) -> Self:
        metrics = [objective.metric for objective in problem.objectives]
        exact = [metrics.index(name) for name in problem.exact]
        unnamed = [trial.candidate for trial in history if not trial.plan_hash]
        looked_up = problem.preview(unnamed).plans if unnamed else ()
        plans = {trial.plan_hash for trial in history} | set(looked_up)
        return cls(
            problem,
            problem.bounds(history)[exact],
            frozenset(trial.candidate for trial in history),
            frozenset(plans - {""}),
        )

    def admit(self, candidates: Sequence[Candidate]) -> Pool:
        """Return those of `candidates` that may be proposed, each plan once, in their order."""
        new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self.candidates]
        pool = Pool.of(self.problem, new)
        first = {plan: i for i, plan in reversed(list(enumerate(pool.plans)))}
        inside = excess(pool.exact, self.bounds).max(axis=1, initial=0.0) <= 0
        return pool.take(
            [
                i
                for i, plan in enumerate(pool.plans)
                if inside[i] and first[plan] == i and plan not in self.plans
            ]
        )

    def excess(self, candidate: Candidate) -> float:
        """Return the largest share by which a candidate exceeds an exact limit; inf if it is refused."""
        pool = Pool.of(self.problem, [candidate])
        return float(excess(pool.exact, self.bounds).max(initial=0.0)) if len(pool) else np.inf

    def without(self, pool: Pool) -> Self:
        """Return a gate that is closed to the members of `pool` too."""
        return replace(
            self, candidates=self.candidates.union(pool.candidates), plans=self.plans.union(pool.plans)
        )


def fresh(gate: Gate, count: int, seed: int) -> Pool:
    """Return at least `count` candidates that may be proposed, in the order of a Sobol sequence.

    Fewer only where no more exist: a space of up to 2,048 candidates is looked through to its end, a
    larger one until 8,192 points have been drawn.
    """
    space = gate.problem.space
    pool = gate.admit(())
    drawn, chunk = 0, max(_CHUNK, count)
    while len(pool) < count and drawn < _PATIENCE:
        pool = pool.joined(gate.without(pool).admit(sobol(space, chunk, seed, skip=drawn)))
        drawn, chunk = drawn + chunk, 2 * chunk
        if len(pool) < count and space.size is not None and drawn >= space.size <= _COUNTABLE:
            return pool.joined(gate.without(pool).admit(list(everything(space))))
    return pool
