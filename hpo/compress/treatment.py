"""What all healing has in common: the text it reads, what it is judged by, and that it never harms.

Factors are balanced first, the better of before and after is kept, and everything that a treatment does
not name stays frozen. Evaluation text is never seen.
"""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from hpo.compress.basis_sharing import balance_shared
from hpo.compress.curve_recorder import CurveRecorder
from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.layers import Compressed, LowRankLinear, MpoLinear
from hpo.compress.losses import loss_of
from hpo.compress.method import Checked, Healed, Healing, Patient
from hpo.compress.mpo_math import balanced_cores
from hpo.compress.own_text import own_text
from hpo.compress.pausing import SHORT_STEPS, pausing_once, run_out
from hpo.compress.sparse_values import values_alone
from hpo.compress.surgery import rebuilding
from hpo.compress.svd_math import balanced
from hpo.compress.teaching import Lesson, Teaching, Treatment
from hpo.compress.training import split
from hpo.errors import NonFinite
from hpo.measure.quality import mean_nll
from hpo.models.text import Corpus


class Begin(Protocol):
    """Starts a treatment; it may put other modules in place of the model's layers."""

    def __call__(self, patient: Patient, seed: int) -> Treatment: ...


class FullFactors(Treatment):
    """Trains every factor of the model as it is."""

    def __init__(self, patient: Patient, seed: int) -> None:
        self._parameters = factor_parameters(patient.model)

    def phases(self) -> Sequence[Sequence[nn.Parameter]]:
        return [self._parameters]


def treating(patient: Patient, knobs: HealKnobs, seed: int, begin: Begin) -> Healing:
    """Train a compressed model in place and keep the better of before and after.

    A tenth of the calibration sequences (at least one) is held out to choose by. A healing of more than
    `SHORT_STEPS` steps pauses once, after that many over all phases. Given up there, the model is as it was
    before the first step, its factors balanced.

    Raises:
        NonFinite: the compressed model was broken before the first step.
    """
    with rebuilding(patient.model), values_alone(patient.model):
        return (yield from _treating(patient, knobs, seed, begin))


def _treating(patient: Patient, knobs: HealKnobs, seed: int, begin: Begin) -> Healing:
    model, keeper = patient.model, patient.keeper
    factors = factor_parameters(model)
    check_finite(factors)
    balance(model)
    text, held_out = texts(patient, knobs)
    before = mean_nll(model, held_out)
    saved = [factor.detach().clone() for factor in factors]
    treatment = begin(patient, seed)
    recorder = CurveRecorder(knobs.loss, knobs.steps)
    recorder.mark(before)
    lesson = Lesson(
        knobs=knobs,
        loss=loss_of(model, patient.materials.dense, knobs),
        text=text,
        device=next(model.parameters()).device,
        seed=seed,
        check=lambda: loss_or_infinity(model, held_out),
    )
    teaching = Teaching(treatment, lesson, recorder)
    keeper.take_up(teaching.take_up)

    def look() -> Checked:
        with _undisturbed(model):
            loss = loss_or_infinity(model, held_out)
        recorder.mark(loss)
        teaching.seen = Checked(SHORT_STEPS, loss, recorder.curve)
        keeper.keep(teaching.snapshot)
        return teaching.seen

    run = keeper.watch(teaching.run(), teaching.snapshot)
    try:
        steps, is_sound = yield from _pausing(run, knobs, teaching, look)
    except GeneratorExit:
        _take_back(treatment, factors, saved)
        raise
    if is_sound:
        keeper.keep(teaching.snapshot)  # what comes after the healing may be cut short, too
    after = _finished(treatment, model, held_out) if is_sound else math.inf
    if not knobs.patience:  # with it, this is not the loss after the last step but that of the best check
        recorder.mark(after)
    healed = Healed(before, after, steps, curve=recorder.curve)
    if not healed.kept_after:
        _take_back(treatment, factors, saved)
    return healed


def _pausing(
    run: Generator[int, None, tuple[int, bool]],
    knobs: HealKnobs,
    teaching: Teaching,
    look: Callable[[], Checked],
) -> Generator[Checked, None, tuple[int, bool]]:
    """Let a run pause, unless it is a short one as a whole. One that goes on from after its pause shows at
    once what was seen there."""
    if knobs.steps <= SHORT_STEPS:
        return run_out(run)
    if teaching.taken >= SHORT_STEPS:
        with closing(run):
            yield teaching.seen or look()
            return run_out(run)
    return (yield from pausing_once(run, SHORT_STEPS - teaching.taken, look))


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave no trace of measuring a model in training: each module's own mode, and the random state."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    for module, mode in modes.items():
        module.training = mode


def _take_back(treatment: Treatment, factors: Sequence[nn.Parameter], saved: Sequence[Tensor]) -> None:
    treatment.undo()
    put_back(factors, saved)


def _finished(treatment: Treatment, model: nn.Module, held_out: Corpus) -> float:
    """Put what was learnt into the model; return its nats per token, infinity where that broke it."""
    try:
        treatment.finish()
    except NonFinite:
        return math.inf
    return loss_or_infinity(model, held_out)


def texts(patient: Patient, knobs: HealKnobs) -> tuple[Corpus, Corpus]:
    """Return the text to train on and the text to choose by, which is always calibration text."""
    text, held_out = split(patient.materials.calibration)
    if knobs.text == "generated":
        text = own_text(patient.materials.dense, text, patient.materials.store)
    return text, held_out


def loss_or_infinity(model: nn.Module, corpus: Corpus) -> float:
    """Return the nats per token of a text; infinity where the model is broken."""
    try:
        loss = mean_nll(model, corpus)
    except NonFinite:
        return math.inf
    return loss if math.isfinite(loss) else math.inf


def factor_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the factors of a compressed model, in order: what healing trains."""
    found: dict[nn.Parameter, None] = {}
    for module in model.modules():
        if isinstance(module, Compressed):
            found |= dict.fromkeys(module.factors())
    return list(found)


def check_finite(factors: Sequence[Tensor]) -> None:
    """Refuse a model that is broken already."""
    if not all(torch.isfinite(factor).all() for factor in factors):
        raise NonFinite("a factor holds NaN or infinity", "the factorisation went wrong; nothing to heal")


@torch.no_grad()
def put_back(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Write values saved earlier."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@torch.no_grad()
def balance(model: nn.Module) -> None:
    """Even out the scales of all factors in place; the model's function stays the same."""
    for module in model.modules():
        if isinstance(module, LowRankLinear):
            put_back([module.left, module.right], balanced(module.left, module.right))
        elif isinstance(module, MpoLinear):
            put_back(list(module.cores), balanced_cores(list(module.cores)))
    balance_shared(model)
