"""Training the dense model before it is compressed, towards weights that bear truncation.

Every method here is one training with another penalty; `Plain` has none and is what the others are
compared with. Letters: O output features, I input features of a layer, W of shape (O, I).
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hpo.compress.heal_knobs import HealKnobs
from hpo.compress.losses import CrossEntropy
from hpo.compress.plan import TrainPlan
from hpo.compress.recipe import Knobs
from hpo.compress.regularisers import CONCENTRATION, NUCLEAR_NORM, STABLE_RANK, Regulariser
from hpo.compress.surgery import linear_layers, weight_of
from hpo.compress.training import Course, batches, split
from hpo.compress.training import train as train_course
from hpo.errors import NonFinite, Unsupported
from hpo.measure.quiet import QuietNode
from hpo.models import reference
from hpo.models.dense import DenseModel
from hpo.models.reference_text import TRAIN, reference_text
from hpo.models.source import Origin, origin
from hpo.models.text import Corpus

STEPS = 100
"""Steps from the dense model, unless told otherwise."""
RATE = 1e-3
"""Peak of AdamW's rate from the dense model, unless told otherwise."""


class TrainKnobs(Knobs):
    """From where, for how long and how boldly to train."""

    start: Literal["dense", "scratch"] = "dense"
    """Go on with the dense model's weights on calibration text, or (the reference model only) train it
    anew by its own recipe and on its own text."""
    steps: int | None = Field(default=None, ge=0, le=100_000)
    """By default 100 from the dense model, and the recipe's own number from scratch."""
    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    """From the dense model: peak of AdamW's, by default 1e-3. From scratch: Muon's, by default the
    recipe's; that of the other weights stays in proportion to it."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the order of the text and, from scratch, of the first weights. Methods and weights with the same
    seed start alike and read the same text."""

    @model_validator(mode="after")
    def _some_steps(self) -> Self:
        if self.start == "scratch" and self.steps == 0:
            raise ValueError("start is scratch and steps is 0, which leaves random weights; give at least 1")
        return self


class PenaltyKnobs(TrainKnobs):
    """How much the penalty counts beside the loss."""

    weight: float = Field(ge=0, le=1e6)
    """What a flat spectrum in every layer would add to the loss, in nats per token: the weight of the mean
    over the layers of each one's share of that. 0 is `plain`."""


@dataclass(frozen=True)
class MeanOverLayers:
    """`weight` times the mean share of a regulariser over the linear layers of the blocks, in [0, weight]."""

    regulariser: Regulariser
    weight: float

    def __call__(self, model: nn.Module) -> Tensor:
        values = [self._of(name, module) for name, module in linear_layers(model)]
        return self.weight * torch.stack(values).mean()

    def _of(self, name: str, module: nn.Module) -> Tensor:
        weight_OI = weight_of(module)
        if not torch.isfinite(weight_OI).all():
            raise NonFinite(
                f"{name}.weight holds NaN or infinity", "the checkpoint is damaged, or training diverged"
            )
        return self.regulariser.share(weight_OI)


class Plain:
    """Training without a penalty: what the methods below are compared with."""

    name: ClassVar[str] = "plain"
    stage: ClassVar[Literal["train"]] = "train"
    summary: ClassVar[str] = "train the model without a penalty, as a control of the methods that have one"
    paper: ClassVar[str] = "Loshchilov and Hutter 2019 (AdamW), arXiv:1711.05101"
    knob_type: ClassVar[type[Knobs]] = TrainKnobs
    regulariser: ClassVar[Regulariser | None] = None

    def plan(self, knobs: Knobs) -> TrainPlan | None:
        assert isinstance(knobs, TrainKnobs)
        if knobs.steps == 0:
            return None
        if isinstance(knobs, PenaltyKnobs) and knobs.weight == 0:
            return TrainPlan(Plain.name, TrainKnobs(**knobs.model_dump(exclude={"weight"})))
        return TrainPlan(self.name, knobs)

    def train(self, dense: DenseModel, corpus: Corpus, plan: TrainPlan) -> nn.Module:
        knobs, penalty = plan.knobs, None
        assert isinstance(knobs, TrainKnobs)
        if self.regulariser is not None and isinstance(knobs, PenaltyKnobs):
            penalty = MeanOverLayers(self.regulariser, knobs.weight)
        module = copy.deepcopy(dense.module)
        if knobs.start == "scratch":
            _begin_anew(module, dense, knobs, penalty)
        else:
            _go_on(module, corpus, knobs, penalty)
        return module.requires_grad_(False).eval()


class Concentration(Plain):
    """Training towards spectra that few directions dominate."""

    name: ClassVar[str] = "concentration"
    summary: ClassVar[str] = "train with a penalty on 1 - tr((W'W)^2) / tr(W'W)^2, the spread of the spectrum"
    paper: ClassVar[str] = "inverse participation ratio; Bell and Dean 1970"
    knob_type: ClassVar[type[Knobs]] = PenaltyKnobs
    regulariser: ClassVar[Regulariser | None] = CONCENTRATION


class StableRank(Plain):
    """Training towards a low ratio of all energy to that of the leading direction."""

    name: ClassVar[str] = "stable_rank"
    summary: ClassVar[str] = "train with a penalty on the stable rank ||W||_F^2 / ||W||_2^2"
    paper: ClassVar[str] = "Sanyal, Torr and Dokania 2020, arXiv:1906.04659"
    knob_type: ClassVar[type[Knobs]] = PenaltyKnobs
    regulariser: ClassVar[Regulariser | None] = STABLE_RANK


class NuclearNorm(Plain):
    """Training towards sparse spectra."""

    name: ClassVar[str] = "nuclear_norm"
    summary: ClassVar[str] = "train with a penalty on the nuclear norm at a given size, ||W||_* / ||W||_F"
    paper: ClassVar[str] = "Recht, Fazel and Parrilo 2010, arXiv:0706.4138"
    knob_type: ClassVar[type[Knobs]] = PenaltyKnobs
    regulariser: ClassVar[Regulariser | None] = NUCLEAR_NORM


def _go_on(module: nn.Module, corpus: Corpus, knobs: TrainKnobs, penalty: MeanOverLayers | None) -> None:
    """Train a model in place with AdamW on calibration text, less the part that healing is judged by."""
    steps = STEPS if knobs.steps is None else knobs.steps
    rate = RATE if knobs.learning_rate is None else knobs.learning_rate
    text, _ = split(corpus)
    loss = CrossEntropy(module)

    def total(ids_BT: Tensor, targets: Tensor) -> Tensor:
        return loss(ids_BT, targets) if penalty is None else loss(ids_BT, targets) + penalty(module)

    how = HealKnobs(steps=steps, learning_rate=rate)
    device = next(module.parameters()).device
    course = Course(
        parameters=list(module.parameters()),
        loss=total,
        batches=batches(text, how.batch, knobs.seed, device),
        knobs=how,
        steps=steps,
        seed=knobs.seed,
        check=lambda: math.nan,  # asked for with patience only
    )
    done = train_course(course)
    if not done.is_sound:
        raise _diverged(done.steps)
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            raise _diverged(done.steps, f": {name} holds NaN or infinity")


def _begin_anew(
    module: nn.Module, dense: DenseModel, knobs: TrainKnobs, penalty: MeanOverLayers | None
) -> None:
    """Put into a copy of the reference model what its recipe makes of another seed, with the penalty.

    Raises:
        Unsupported: it is another model, whose recipe and text are not known here.
    """
    if origin(dense.source) is not Origin.REFERENCE:
        raise Unsupported(
            f"train.start is scratch, and {dense.source.source!r} is not the reference model: its training "
            "is not known here",
            "set train.start to dense, which goes on from the model's weights",
        )
    recipe, node = _recipe(knobs), QuietNode()

    def report(step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise _diverged(step)
        with node.working():  # between two steps, so that a timing nearby need not wait long
            pass

    with reference.one_thread():
        fresh = reference.train(reference_text().splits[TRAIN], recipe, report, penalty)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(fresh.get_parameter(name))


def _recipe(knobs: TrainKnobs) -> reference.Recipe:
    recipe = replace(reference.reference_recipe(), seed=knobs.seed)
    if knobs.steps is not None:
        recipe = replace(recipe, steps=knobs.steps)
    if knobs.learning_rate is not None:
        share = knobs.learning_rate / recipe.matrix_rate
        recipe = replace(recipe, matrix_rate=knobs.learning_rate, other_rate=recipe.other_rate * share)
    return recipe


def _diverged(step: int, where: str = "") -> NonFinite:
    hint = "set train.learning_rate or train.weight lower"
    return NonFinite(f"the training diverged at step {step}{where}", hint)
