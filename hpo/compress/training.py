"""Training of a few parameters of a model on text: batches, schedules, optimisers, early stopping.

Letters: B sequences, T tokens.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hpo.compress.heal_knobs import HealKnobs, Schedule
from hpo.compress.optimisers import optimiser_of
from hpo.compress.pausing import run_out
from hpo.compress.snapshot import Misfit, Snapshot
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises."""
HELD_OUT = 10
"""One sequence in so many is held out of the calibration text, to choose by."""
PADDING = -100
"""Target of a place that holds no token; torch's cross-entropy leaves it out."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""From token ids (B, T) and targets (B, T - 1), ``PADDING`` where there is none, to a scalar in nats."""


def _nothing(_step: int) -> None:
    pass


def _unheard(_loss: float) -> None:
    pass


@dataclass(frozen=True)
class Course:
    """What is trained, on what, and for how long."""

    parameters: Sequence[nn.Parameter]
    loss: Loss
    batches: Iterator[tuple[Tensor, Tensor]]
    knobs: HealKnobs
    steps: int
    """Of this course; the schedule spans them."""
    seed: int
    check: Callable[[], float]
    """Loss on text held out; asked for only where the knobs have patience."""
    before_step: Callable[[int], None] = _nothing
    after_step: Callable[[int], None] = _nothing
    """Called with the step, from 0; gradients (of AdamW) stand in ``parameter.grad``."""
    record: Callable[[float], None] = _unheard
    """Called with the loss of each step that was taken, which is known by then."""


@dataclass(frozen=True)
class Trained:
    """How a course went."""

    steps: int
    """Steps taken."""
    is_sound: bool
    """Whether what came of it can be used: the loss stayed finite, or a state checked earlier is back."""


def train(course: Course) -> Trained:
    """Train in place, as `training` does, without a pause."""
    return run_out(training(course))


def training(course: Course) -> Generator[int, None, Trained]:
    """Train in place and yield, after each step, the steps taken in this course; see `Training.steps`."""
    return Training(course).steps()


class Training:
    """A course under way. After any step it can be written down, and taken up again where it stood.

    Torch's own random state is no part of that: all that a course draws comes from generators of its own.
    """

    def __init__(self, course: Course) -> None:
        self.taken = 0
        """Steps taken."""
        self._course = course
        self._optimiser = optimiser_of(course.parameters, course.knobs, course.seed)
        self._best = _Best(course)

    def steps(self) -> Generator[int, None, Trained]:
        """Train in place and yield, after each step, the steps taken.

        Parameters of half precision are trained through float32 copies. With patience, the parameters end in
        the best state that was checked. A step whose loss is not finite ends the course and yields nothing.
        Closed early, the parameters are left where they are, frozen.
        """
        course, best, node = self._course, self._best, QuietNode()
        for parameter in course.parameters:
            parameter.requires_grad_(True)
        try:
            while self.taken < course.steps and not best.is_over:
                with node.working():
                    if not self._step():
                        return Trained(self.taken, is_sound=best.put_back())
                self.taken += 1
                best.look(self.taken)
                yield self.taken
            return Trained(self.taken, is_sound=best.put_back() or not course.knobs.patience)
        finally:
            for parameter in course.parameters:
                parameter.requires_grad_(False)
                parameter.grad = None

    def _step(self) -> bool:
        """Take a step; return whether its loss was finite."""
        course, step = self._course, self.taken
        course.before_step(step)
        ids_BT, targets = next(course.batches)
        rate = course.knobs.learning_rate * rate_share(course.knobs.schedule, course.steps, step)
        loss = self._optimiser.step(lambda: course.loss(ids_BT, targets), rate)
        if not math.isfinite(loss):
            return False
        course.record(loss)
        course.after_step(step)
        return True

    def snapshot(self) -> Snapshot:
        """Return where the course stands; only after a step."""
        own = Snapshot(facts={"taken": self.taken})
        return Snapshot.joined(own=own, optimiser=self._optimiser.snapshot(), best=self._best.snapshot())

    def take_up(self, snapshot: Snapshot) -> None:
        """Go on from there, before the first step.

        Raises:
            Misfit: it is of another course; nothing has changed.
        """
        taken = snapshot.part("own").fact("taken")
        if not isinstance(taken, int) or not 0 < taken <= self._course.steps:
            raise Misfit(f"it is of step {taken!r}, where there are {self._course.steps}")
        best = snapshot.part("best")
        self._best.check(best)
        self._optimiser.take_up(snapshot.part("optimiser"))
        self._best.take_up(best)
        for _ in range(taken):
            next(self._course.batches)
        self.taken = taken


def rate_share(schedule: Schedule, steps: int, step: int) -> float:
    """Return the share of the peak learning rate at a step, from 0: a linear rise, then the schedule."""
    rise = max(round(steps * WARM_UP), 1)
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(steps - rise, 1)
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def split(corpus: Corpus) -> tuple[Corpus, Corpus]:
    """Return a text's training part and the part held out: a tenth of the sequences, at least one."""
    sequences = corpus.sequences
    kept = len(sequences) - max(len(sequences) // HELD_OUT, 1)
    if kept == 0:  # a single sequence has to serve as both
        return corpus, corpus
    return replace(corpus, sequences=sequences[:kept]), replace(corpus, sequences=sequences[kept:])


def batches(corpus: Corpus, size: int, seed: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield token ids (B, T) and targets (B, T - 1) for ever, in an order that follows from the seed.

    Padding stands on the right, where a causal model cannot see it from a real token.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(corpus.sequences), generator=generator).tolist()
        for start in range(0, len(order), size):
            chosen = [corpus.sequences[i] for i in order[start : start + size]]
            ids = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
            targets = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=PADDING)[:, 1:]
            yield ids.to(device), targets.to(device)


@dataclass
class _Best:
    """The best state checked so far, and how many checks ago that was."""

    course: Course
    lowest: float = math.inf
    saved: list[Tensor] = field(default_factory=list)
    since: int = 0

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return bool(self.course.knobs.patience) and self.since >= self.course.knobs.patience

    def look(self, steps: int) -> None:
        """Check the state after so many steps where a check is due."""
        knobs = self.course.knobs
        if not knobs.patience or (steps % knobs.check_every and steps != self.course.steps):
            return
        loss = self.course.check()
        if loss < self.lowest:
            self.lowest, self.since = loss, 0
            self.saved = [parameter.detach().clone() for parameter in self.course.parameters]
        else:
            self.since += 1

    @torch.no_grad()
    def put_back(self) -> bool:
        """Put the best state back; return whether there is one."""
        if not self.saved:
            return False
        for parameter, value in zip(self.course.parameters, self.saved, strict=True):
            parameter.copy_(value)
        return True

    def snapshot(self) -> Snapshot:
        facts = {"lowest": self.lowest, "since": self.since}
        return Snapshot(Snapshot.listed(self.saved).tensors, facts)

    def check(self, snapshot: Snapshot) -> None:
        """Refuse what is of other parameters."""
        snapshot.like(self.course.parameters if snapshot.tensors else [])
        if not isinstance(snapshot.fact("since"), int) or not isinstance(snapshot.fact("lowest"), float):
            raise Misfit(f"its best state is told as {dict(snapshot.facts)}")

    def take_up(self, snapshot: Snapshot) -> None:
        self.lowest, self.since = snapshot.fact("lowest"), snapshot.fact("since")
        values = snapshot.like(self.course.parameters if snapshot.tensors else [])
        self.saved = [v.to(p.device) for v, p in zip(values, self.course.parameters, strict=False)]
