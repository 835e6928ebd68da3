"""Training of a few parameters of a model on text: batches, schedules, optimisers, early stopping.

Letters: B sequences, T tokens.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from hpo.compress.heal_knobs import HealKnobs, Schedule
from hpo.compress.mezo import mezo_step
from hpo.compress.pausing import run_out
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises."""
HELD_OUT = 10
"""One sequence in so many is held out of the calibration text, to choose by."""
PADDING = -100
"""Target of a place that holds no token; torch's cross-entropy leaves it out."""
_LARGEST_NORM = 1.0
"""Of the gradient over all parameters; above it is scaled down."""

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
    """Train in place and yield, after each step, the steps taken in this course.

    Parameters of half precision are trained through float32 copies. With patience, the parameters end in the
    best state that was checked. A step whose loss is not finite ends the course and yields nothing. Closed
    early, the parameters are left where they are, frozen.
    """
    optimiser = _optimiser(course)
    best = _Best(course)
    node = QuietNode()
    for parameter in course.parameters:
        parameter.requires_grad_(True)
    try:
        for step in range(course.steps):
            with node.working():
                if not _step(course, optimiser, step):
                    return Trained(step, is_sound=best.put_back())
            is_over = best.is_over(step + 1)
            yield step + 1
            if is_over:
                return Trained(step + 1, is_sound=best.put_back())
        return Trained(course.steps, is_sound=best.put_back() or not course.knobs.patience)
    finally:
        for parameter in course.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def _step(course: Course, optimiser: "_Optimiser", step: int) -> bool:
    """Take a step; return whether its loss was finite."""
    course.before_step(step)
    ids_BT, targets = next(course.batches)
    rate = course.knobs.learning_rate * rate_share(course.knobs.schedule, course.steps, step)
    loss = optimiser.step(lambda: course.loss(ids_BT, targets), rate)
    if not math.isfinite(loss):
        return False
    course.record(loss)
    course.after_step(step)
    return True


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


class _Optimiser(Protocol):
    def step(self, loss: Callable[[], Tensor], rate: float) -> float:
        """Move the parameters; return the loss. Where it is not finite, nothing moves."""
        ...


def _optimiser(course: Course) -> _Optimiser:
    return _Mezo(course) if course.knobs.optimiser == "mezo" else _AdamW(course)


class _Masters:
    """The parameters in float32: copies of those of half precision, which cannot hold small updates."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.weights: list[Tensor] = [
            p if p.dtype == torch.float32 else p.detach().float().clone() for p in parameters
        ]

    @torch.no_grad()
    def write(self) -> None:
        for parameter, weight in zip(self.parameters, self.weights, strict=True):
            if parameter is not weight:
                parameter.copy_(weight)


class _AdamW:
    """Loshchilov and Hutter 2019, arXiv:1711.05101; without decay, which would undo the factorisation."""

    def __init__(self, course: Course) -> None:
        self._masters = _Masters(course.parameters)
        self._adamw = torch.optim.AdamW(self._masters.weights, weight_decay=0.0, betas=(0.9, 0.95))

    def step(self, loss: Callable[[], Tensor], rate: float) -> float:
        masters = self._masters
        value = loss()
        if not torch.isfinite(value):
            return math.nan
        # Experts that no token was sent to have no gradient.
        gradients = torch.autograd.grad(value, masters.parameters, allow_unused=True)
        for master, gradient in zip(masters.weights, gradients, strict=True):
            master.grad = torch.zeros_like(master) if gradient is None else gradient.float()
        nn.utils.clip_grad_norm_(masters.weights, _LARGEST_NORM)
        self._adamw.param_groups[0]["lr"] = rate
        self._adamw.step()
        masters.write()
        return float(value.detach())


class _Mezo:
    """Two forward passes a step; see `hpo.compress.mezo`."""

    def __init__(self, course: Course) -> None:
        self._masters = _Masters(course.parameters)
        self._perturbation = course.knobs.perturbation
        self._seeds = torch.Generator().manual_seed(course.seed)

    def step(self, loss: Callable[[], Tensor], rate: float) -> float:
        def value() -> float:
            self._masters.write()
            return float(loss())

        seed = int(torch.randint(2**62, (), generator=self._seeds))
        mean = mezo_step(self._masters.weights, value, seed, rate, self._perturbation)
        self._masters.write()
        return mean


@dataclass
class _Best:
    """The best state checked so far, and how many checks ago that was."""

    course: Course
    lowest: float = math.inf
    saved: list[Tensor] = field(default_factory=list)
    since: int = 0

    def is_over(self, steps: int) -> bool:
        """Check the state after so many steps where a check is due; return whether patience has run out."""
        knobs = self.course.knobs
        if not knobs.patience or (steps % knobs.check_every and steps != self.course.steps):
            return False
        loss = self.course.check()
        if loss < self.lowest:
            self.lowest, self.since = loss, 0
            self.saved = [parameter.detach().clone() for parameter in self.course.parameters]
        else:
            self.since += 1
        return self.since >= knobs.patience

    @torch.no_grad()
    def put_back(self) -> bool:
        """Put the best state back; return whether there is one."""
        if not self.saved:
            return False
        for parameter, value in zip(self.course.parameters, self.saved, strict=True):
            parameter.copy_(value)
        return True
