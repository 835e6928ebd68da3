"""Asking computes in turns, between which timings on the same machine go first."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from hpo.measure.quiet import QuietNode
from hpo.problem import Preview, Problem
from hpo.space import Candidate


class Turn:
    """The place of an ask among what computes on its machine: a worker's timing wants the machine to itself.

    An ask takes its turn like a worker's chunk of compute (`hpo.measure.quiet`): it begins once no timing
    is under way, and a timing waits for its end. So that it need not wait for the whole ask, the turn is
    given up and taken again whenever the sampler previews candidates, which is several times a second.
    """

    def __init__(self, node: QuietNode | None = None) -> None:
        self._node = node or QuietNode()
        self._held = ExitStack()
        self._taken = False

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Compute; not to be nested, and from one thread at a time.

        Raises:
            HpoError: the measuring lock cannot be used.
        """
        self._held.enter_context(self._node.working())
        self._taken = True
        try:
            yield
        finally:
            self._taken = False
            self._held.close()

    def sharing(self, problem: Problem) -> Problem:
        """Return the problem with a preview that, inside `taken`, lets timings go first."""

        def preview(candidates: Sequence[Candidate]) -> Preview:
            if self._taken:
                self._held.close()
                self._held.enter_context(self._node.working())
            return problem.preview(candidates)

        return replace(problem, preview=preview)
