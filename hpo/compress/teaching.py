"""The training part of a healing: what a treatment trains, one part after the other."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.compress.curve_recorder import CurveRecorder
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.method import Checked
from hpo.compress.snapshot import Misfit, Snapshot
from hpo.compress.training import Course, Loss, Training, batches
from hpo.models.text import Corpus


class Treatment:
    """What is trained in a model, and what becomes of it. By default nothing, and nothing."""

    def phases(self) -> Sequence[Sequence[nn.Parameter]]:
        """Return what is trained, one part after the other; the steps are divided among them."""
        raise NotImplementedError

    def penalty(self) -> Tensor | None:
        """Return what is added to the loss."""
        return None

    def after_step(self, step: int) -> None:
        """Called after each step, from 0, with gradients in place."""

    def snapshot(self) -> Snapshot:
        """Return what it has learnt beside the parameters that it trains."""
        return Snapshot()

    def take_up(self, snapshot: Snapshot) -> None:
        """Go on from there.

        Raises:
            Misfit: it is of another treatment; nothing has changed.
        """

    def finish(self) -> None:
        """Put what was learnt into the layers."""

    def undo(self) -> None:
        """Put back the modules that were there before. Values of their factors are put back by the caller."""


@dataclass(frozen=True)
class Lesson:
    """What a treatment is taught by."""

    knobs: HealKnobs
    loss: Loss
    """Without the treatment's own penalty."""
    text: Corpus
    device: torch.device
    seed: int
    check: Callable[[], float]
    """Nats per token of the text held out, infinite where the model is broken."""


class Teaching:
    """A treatment's training under way. After any step it can be written down and taken up again."""

    def __init__(self, treatment: Treatment, lesson: Lesson, recorder: CurveRecorder) -> None:
        self.seen: Checked | None = None
        """What was seen where the healing paused."""
        self._treatment, self._lesson, self._recorder = treatment, lesson, recorder
        self._phases = [parameters for parameters in treatment.phases() if parameters]
        self._over, self._before = 0, 0
        """Parts that are trained, and the steps that took."""
        self._training = self._begun(0)
        """Of the part after these; None after the last."""

    @property
    def taken(self) -> int:
        """Steps taken over all parts."""
        return self._before + (self._training.taken if self._training else 0)

    def run(self) -> Generator[int, None, tuple[int, bool]]:
        """Train, yielding after each step; return all steps taken and whether what came of them is sound."""
        while self._training is not None:
            trained = yield from self._training.steps()
            self._before += trained.steps
            if not trained.is_sound:
                return self._before, False
            self._over += 1
            self._training = self._begun(self._over)
        return self._before, True

    def _begun(self, turn: int) -> Training | None:
        lesson, parts = self._lesson, len(self._phases)
        if turn == parts:
            return None
        return Training(
            Course(
                parameters=self._phases[turn],
                loss=self._loss,
                batches=batches(lesson.text, lesson.knobs.batch, lesson.seed + turn, lesson.device),
                knobs=lesson.knobs,
                steps=lesson.knobs.steps * (turn + 1) // parts - lesson.knobs.steps * turn // parts,
                seed=lesson.seed + turn,
                check=self._check,
                after_step=self._treatment.after_step,
                record=self._recorder.step,
            )
        )

    def _loss(self, ids_BT: Tensor, targets: Tensor) -> Tensor:
        loss, penalty = self._lesson.loss(ids_BT, targets), self._treatment.penalty()
        return loss if penalty is None else loss + penalty

    def _check(self) -> float:
        found = self._lesson.check()
        self._recorder.check(found)
        return found

    def snapshot(self) -> Snapshot:
        """Return where it stands. Parts that it has not begun with are as they were at first."""
        seen = None if self.seen is None else [self.seen.steps, self.seen.loss]
        return Snapshot.joined(
            own=Snapshot(facts={"over": self._over, "before": self._before, "seen": seen}),
            trained=Snapshot.listed(self._trained(self._over)),
            training=Snapshot() if self._training is None else self._training.snapshot(),
            treatment=self._treatment.snapshot(),
            recorder=self._recorder.snapshot(),
        )

    def _trained(self, over: int) -> list[nn.Parameter]:
        """Return the parameters of the first parts."""
        return [parameter for parameters in self._phases[:over] for parameter in parameters]

    def take_up(self, snapshot: Snapshot) -> None:
        """Go on from there, before the first step.

        Raises:
            Misfit: it is of another training; nothing has changed.
        """
        over, before, seen = (snapshot.part("own").fact(name) for name in ("over", "before", "seen"))
        if over not in range(len(self._phases) + 1) or not isinstance(before, int):
            raise Misfit(f"it is of part {over!r} of {len(self._phases)}, after {before!r} steps")
        values, parameters = snapshot.part("trained"), self._trained(over)
        fresh = {"treatment": self._treatment.snapshot(), "recorder": self._recorder.snapshot()}
        for name, mine in fresh.items():
            if snapshot.part(name).facts.keys() != mine.facts.keys():
                raise Misfit(f"it tells of another {name}: {dict(snapshot.part(name).facts)}")
        learnt, training = values.like(parameters), self._begun(over)
        if training is not None:
            training.take_up(snapshot.part("training"))  # the last that may refuse
        with torch.no_grad():
            for parameter, value in zip(parameters, learnt, strict=True):
                parameter.copy_(value)
        self._treatment.take_up(snapshot.part("treatment"))
        self._recorder.take_up(snapshot.part("recorder"))
        self._over, self._before, self._training = over, before, training
        self.seen = None if seen is None else Checked(seen[0], seen[1], self._recorder.curve)
