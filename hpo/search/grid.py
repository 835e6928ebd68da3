"""Every combination of a discrete space, one after the other: for comparisons, where nothing is searched."""

from collections.abc import Sequence
from itertools import islice

from hpo.errors import InvalidStudy
from hpo.problem import Problem
from hpo.search.generate import everything
from hpo.search.pool import Gate
from hpo.space import Candidate, SearchSpace
from hpo.trial import Trial

_CHUNK = 64
"""Candidates looked at together: enough for one preview, few enough for a space of millions."""


class GridSampler:
    """All candidates in the order of the space: the parameter that stands first changes last.

    A budget smaller than the grid thus ends with the first values of the first parameters complete. The
    order is the same whatever the seed, and conditional parameters come after the others.
    """

    summary = "every combination in a fixed order; for comparisons over a small space without ranges"

    def __init__(self, initial: int = 8) -> None:
        self.initial = initial
        """Taken for the sake of the protocol; nothing is quasi-random here."""

    def ask(self, problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Candidate]:
        """Return the next `count` combinations that may be proposed; fewer where the grid ends.

        Raises:
            InvalidStudy: a parameter is continuous.
        """
        check_countable(problem.space)
        gate, points = Gate.of(problem, history), everything(problem.space)
        pool = gate.admit(())
        while len(pool) < count and (chunk := list(islice(points, _CHUNK))):
            pool = pool.joined(gate.without(pool).admit(chunk))
        return list(pool.candidates[:count])


def check_countable(space: SearchSpace) -> None:
    """Refuse a space with a parameter whose values cannot be listed.

    Raises:
        InvalidStudy: naming it, with its path in the document.
    """
    for name, parameter in space.parameters.items():
        if parameter.count is None:
            raise InvalidStudy(
                f"the sampler grid tries every value, and {name!r} is {parameter.describe()}",
                "give it a step, or name its values: {type: choice, choices: [...]}",
                ("space", name),
            )
