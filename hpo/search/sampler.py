"""The protocol of a sampler: everything a stranger needs to write one.

A sampler keeps nothing between calls. It is handed the whole history and a seed, and the same
history and seed give the same candidates, in this process or after a restart on another machine.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hpo.problem import Problem
from hpo.skill import Skill
from hpo.space import Candidate
from hpo.trial import Trial


class Sampler(Protocol):
    """Chooses what to try next. Registered by name in `hpo.registry`; made without arguments or
    with ``initial``, the number of quasi-random candidates wanted before a model is trusted."""

    summary: str
    """One line for `hpo list samplers`: what it is and when to use it."""

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        """Return `count` new candidates of ``problem.space`` (fewer only if no more exist).

        `seed` is the study's own, the same at every question: a sampler that draws anew each time mixes
        in the length of the history, and one that walks along a sequence stays on it.

        `history` holds every trial so far, in order of number, whatever its state: WAITING and
        RUNNING ones are pending and must not be proposed again; FAILED ones have a cause instead of
        values; anchors may lie outside the space. No two returned candidates, and none of them with
        `history`, share a plan hash (``problem.preview``) or, where that is refused, are proposed at
        all. A candidate whose exact objective breaks a limit is not proposed.
        """
        ...


@runtime_checkable
class Modelling(Protocol):
    """A sampler that has a model, and can say how good it is. None needs to."""

    def skills(self, problem: Problem, history: Sequence[Trial], seed: int) -> list[Skill]:
        """Return the skill at each modelled objective of which enough is known to judge."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A sampler whose first question takes longer than the others. None needs to be one."""

    def prepare(self) -> None:
        """Do beforehand what is done once a process, such as slow imports."""
        ...
