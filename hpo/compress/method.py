"""The protocols of compression methods: everything a stranger needs to write one.

A method is a class without arguments, registered by name in `hpo.registry`. Its `knob_type` holds the
parameters a search space may give it, named ``<stage>.<knob>`` there. It first *plans* (exact costs,
no torch) and later *applies* the plan to a model. The stages, in order::

    train      changes the dense model's weights before anything else
    prune      removes whole heads, units, dimensions or blocks
    embed      replaces the embedding (and the output layer, where they are one)
    factorise  replaces the linear layers of the blocks
    sparsify   sets single weights to zero
    heal       fine-tunes what the stages before put in place
    quantize   holds in few bits what is left
    cache      says how keys and values of earlier tokens are remembered

A candidate may name another order; `hpo.compress.order` says which make sense.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import nn

from hpo.compress.cache_plan import CachePlan, CacheShape
from hpo.compress.keeper import Keeper
from hpo.compress.layer_plan import LayerPlan
from hpo.compress.materials import Materials
from hpo.compress.plan import HealPlan, PartPlan, Plan, TrainPlan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.healing_curve import HealingCurve
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus
from hpo.space import Value


class Trainer(Protocol):
    """Trains the dense model before it is compressed (stage ``train``)."""

    stage: ClassVar[Literal["train"]]
    summary: ClassVar[str]
    """One line for `hpo list methods`."""
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]]

    def plan(self, knobs: Knobs) -> TrainPlan | None:
        """Return what will be done; None where the knobs amount to nothing."""
        ...

    def train(self, dense: DenseModel, corpus: Corpus, plan: TrainPlan) -> nn.Module:
        """Return another model of the same architecture, in eval mode; `dense` stays as it is.

        The same plan gives the same weights; the caller keeps them.

        Raises:
            Unsupported: the model does not allow what is asked.
            NonFinite: the training diverged.
        """
        ...


@dataclass(frozen=True)
class Pruned:
    """What is left of a model."""

    layers: tuple[LayerPlan, ...]
    """In the order of the architecture's layers."""
    rest: tuple[PartPlan, ...] = ()
    """Other parts of the model that become smaller with them."""


class Pruner(Protocol):
    """Removes whole heads, units, dimensions or blocks (stage ``prune``): a smaller model of the same kind.

    A layer that stays is a linear layer still, at the path it had.
    """

    stage: ClassVar[Literal["prune"]]
    summary: ClassVar[str]
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]]

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        """As `Factoriser.preparations`."""
        ...

    def plan(self, profile: ModelProfile, knobs: Knobs) -> Pruned:
        """Return what is left of every layer and of the parts beside them.

        Raises:
            Unsupported: the model has nothing of the kind that could be removed.
        """
        ...

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        """Make the dense `model` smaller in place."""
        ...

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        """As `Factoriser.damage`."""
        ...


class Reformer(Protocol):
    """Changes the matrices that earlier stages have left (stages ``sparsify`` and ``quantize``)."""

    stage: ClassVar[Literal["sparsify", "quantize"]]
    summary: ClassVar[str]
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]]

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        """As `Factoriser.preparations`."""
        ...

    def plan(self, profile: ModelProfile, knobs: Knobs, layers: Sequence[LayerPlan]) -> tuple[LayerPlan, ...]:
        """Return what becomes of each layer, given what earlier stages have made of it.

        Raises:
            Unsupported: a shape does not go with the knobs, or nothing is left to change.
        """
        ...

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        """Replace the planned layers of `model` in place. Where `materials` says that the model is not the
        dense one any more, what was prepared does not hold for its layers."""
        ...

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        """As `Factoriser.damage`: what this stage adds."""
        ...


class Cacher(Protocol):
    """Says how the model remembers keys and values (stage ``cache``); no weight changes."""

    stage: ClassVar[Literal["cache"]]
    summary: ClassVar[str]
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]]

    def plan(self, knobs: Knobs, shapes: Sequence[CacheShape]) -> CachePlan:
        """Return how the cache is held, given what each block adds to it.

        Raises:
            Unsupported: the model's cache cannot be held so.
        """
        ...


class Embedder(Protocol):
    """Replaces the embedding (stage ``embed``)."""

    stage: ClassVar[Literal["embed"]]
    summary: ClassVar[str]
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]]

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        """As `Factoriser.preparations`."""
        ...

    def plan(self, profile: ModelProfile, knobs: Knobs) -> PartPlan | None:
        """Return what becomes of ``profile.architecture.embedding``; None where nothing is gained.

        Raises:
            Unsupported: the model has no embedding of that kind.
        """
        ...

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        """Replace the embedding of `model` in place."""
        ...


class Factoriser(Protocol):
    """Replaces linear layers by smaller ones (stage ``factorise``)."""

    stage: ClassVar[Literal["factorise"]]
    summary: ClassVar[str]
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]]

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        """Return what candidates of a space will need prepared.

        `knob_values` holds, for each knob, every value the space may give it; nothing for a continuous one.
        """
        ...

    def plan(self, profile: ModelProfile, knobs: Knobs) -> tuple[LayerPlan, ...]:
        """Return what is done to each layer of ``profile.architecture``, in its order.

        Raises:
            Unsupported: the knobs ask for something this model does not allow.
        """
        ...

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        """Replace the planned layers of `model` in place, from what was prepared."""
        ...

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        """Return a cheap prediction of each layer's relative error in [0, 1], shape (L,): a feature for the
        search."""
        ...


@dataclass(frozen=True)
class Patient:
    """A compressed model to be healed."""

    model: nn.Module
    """Trained in place."""
    plan: Plan
    materials: Materials
    """The dense model, which may teach, and the calibration text, which is all that may be read."""
    keeper: Keeper = field(default_factory=Keeper, compare=False)
    """Keeps its checkpoints; by default none."""


@dataclass(frozen=True)
class Healed:
    """What healing did to the loss on calibration text held out from it."""

    before: float
    """Nats per token of the compressed model, factors balanced, before the first step."""
    after: float
    """The same after the last step; infinite if training diverged."""
    steps: int
    """Steps taken; fewer than planned if training diverged or stopped early."""
    warm: bool = False
    """Whether it started from the healed factors of another trial."""
    shared: str = ""
    """Key of the healing run, where one run serves several trials."""
    curve: HealingCurve | None = field(default=None, compare=False)
    """How it went, for people to look at; of a shared run that of the run."""

    @property
    def kept_after(self) -> bool:
        return self.after < self.before


@dataclass(frozen=True)
class Checked:
    """What a healing had come to when it paused."""

    steps: int
    """Steps taken so far, from 1."""
    loss: float
    """Nats per token of the calibration text held out, as in `Healed`; infinite where the model is broken."""
    curve: HealingCurve | None = field(default=None, compare=False)
    """How it went so far."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"checked after {self.steps} steps, at least 1 is needed")
        if math.isnan(self.loss):
            raise ValueError("the loss is NaN; of a broken model it is infinite")


Healing = Generator[Checked, None, Healed]
"""A healing that may pause. Nothing but itself may touch the model before it is resumed or closed."""


class Healer(Protocol):
    """Fine-tunes the compressed layers for a while (stage ``heal``).

    One that can only come after another stage names it in an attribute `follows`.
    """

    stage: ClassVar[Literal["heal"]]
    summary: ClassVar[str]
    paper: ClassVar[str]
    knob_type: ClassVar[type[Knobs]]

    def plan(self, knobs: Knobs, layers: Sequence[LayerPlan]) -> HealPlan | None:
        """Return what will be done to a model of these layers; None where the knobs amount to nothing.

        Raises:
            Unsupported: such layers cannot be healed this way.
        """
        ...

    def heal(self, patient: Patient, plan: HealPlan, seed: int) -> Healed:
        """Train in place and keep the better of before and after.

        Raises:
            NonFinite: the compressed model was broken before the first step.
        """
        ...


@runtime_checkable
class PausableHealer(Protocol):
    """What a healer may have in addition, so that models of no promise can be given up early.

    Whoever writes one of `heal` and `healing` writes both: they are the same work.
    """

    def healing(self, patient: Patient, plan: HealPlan, seed: int) -> Healing:
        """As `Healer.heal`, number for number, but pausing between steps; see `hpo.compress.pausing`.

        Closed at a pause it is given up: nothing is left that trains, and the model is not used any more.
        """
        ...
