"""Plans: what a candidate does to the whole model, after rounding. Costs follow exactly; nothing is run."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.cache_plan import CachePlan
from hpo.compress.layer_plan import Costs, LayerPlan
from hpo.compress.recipe import Knobs
from hpo.trial import LayerRecord


class PartPlan(Protocol):
    """What becomes of a part of the model outside its linear layers: a frozen value."""

    @property
    def kind(self) -> str: ...

    @property
    def costs(self) -> Costs:
        """Of everything that takes the place of dense modules: of an embedding also the output layer, if it
        changes."""
        ...

    @property
    def dense_parameters(self) -> int:
        """Weights of the dense modules that go; a tied one once."""
        ...

    @property
    def dense_macs_per_token(self) -> int: ...


def knobs_key(method: str, knobs: Knobs) -> str:
    """Return a method and its knobs in words. Defaults are left out, so a new knob leaves old keys alone."""
    given = knobs.model_dump(exclude_defaults=True)
    values = (
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in sorted(given.items())
    )
    return ":".join([method, *values])


@dataclass(frozen=True)
class TrainPlan:
    """Training of the dense model before anything else. Its factors are cached under its key."""

    method: str
    knobs: Knobs

    @cached_property
    def key(self) -> str:
        return knobs_key(self.method, self.knobs)


@dataclass(frozen=True)
class HealPlan:
    """A short fine-tune of the factors. Without steps there is no plan (None instead)."""

    method: str
    knobs: Knobs
    kept_parameters: int = 0
    """Weights that healing adds and leaves in the model."""
    kept_macs_per_token: int = 0
    """Their multiply-accumulates."""

    @cached_property
    def key(self) -> str:
        return knobs_key(self.method, self.knobs)


@dataclass(frozen=True)
class Plan:
    """What is done to the whole model. Its hash is its content: equal hashes are one trial."""

    architecture: Architecture
    layers: tuple[LayerPlan, ...]
    """In the order of ``architecture.layers``: what has become of each in the end."""
    changes: tuple["Change", ...] = ()
    """What made them so, in order."""
    heal: HealPlan | None = None
    embedding: PartPlan | None = None
    train: TrainPlan | None = None
    rest: tuple[PartPlan, ...] = ()
    """Other parts of the model that change, such as norms of blocks that go."""
    cache: CachePlan | None = None
    """How keys and values are remembered; None: as the model does."""
    healed_as: str = ""
    """Hash of this plan without what comes after its healing, empty where nothing is healed. Plans that share
    it are healed alike, whatever is rounded afterwards."""

    @cached_property
    def is_dense(self) -> bool:
        layers_are = all(layer.kind == "dense" for layer in self.layers)
        return layers_are and not self._parts and self.train is None and self.cache is None

    @property
    def _parts(self) -> tuple[PartPlan, ...]:
        return (*self.rest, self.embedding) if self.embedding is not None else self.rest

    def change(self, stage: str) -> "Change | None":
        """Return what a stage does; None if it is not among the changes."""
        return next((change for change in self.changes if change.stage == stage), None)

    @cached_property
    def linear_parameters(self) -> int:
        return sum([layer.costs.parameters for layer in self.layers])

    @cached_property
    def _other(self) -> Costs:
        """Costs of everything but the layers."""
        a, heal = self.architecture, self.heal
        parameters, packed, macs = a.other_parameters, 0, a.other_macs
        for part in self._parts:
            parameters += part.costs.parameters - part.dense_parameters
            packed += part.costs.packed_bytes
            macs += part.costs.macs(a.context) - part.dense_macs_per_token * a.context
        if heal is not None:
            parameters += heal.kept_parameters
            macs += heal.kept_macs_per_token * a.context
        return Costs("", "", parameters, 0, 0, macs, packed)

    @property
    def parameters(self) -> int:
        return self._other.parameters + self.linear_parameters

    @cached_property
    def weight_bytes(self) -> int:
        resident = sum([layer.costs.resident for layer in self.layers])
        packed = sum([layer.costs.packed_bytes for layer in self.layers]) + self._other.packed_bytes
        resident += sum([part.costs.resident - part.dense_parameters for part in self._parts])
        if self.heal is not None:
            resident += self.heal.kept_parameters
        return self.architecture.other_bytes + resident * self.architecture.weight_bits // 8 + packed

    @cached_property
    def prefill_macs(self) -> int:
        """Multiply-accumulates of one forward over a full context, batch 1, as torch counts them."""
        tokens = self.architecture.context
        return self._other.macs_per_call + sum([layer.costs.macs(tokens) for layer in self.layers])

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of a SHA-256 over every layer's plan, the methods, training and healing."""
        if self.is_dense:
            return "dense"
        parts = [
            self.train.key if self.train else "",
            *[change.key for change in self.changes],
            self.heal.key if self.heal else "",
            *[part.costs.key for part in self._parts],
            *[layer.costs.key for layer in self.layers],
            *([self.cache.key] if self.cache else []),
        ]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]

    def records(self) -> tuple[LayerRecord, ...]:
        """Return one readable row a layer, for the store; the embedding's first if it changes."""
        bits = self.architecture.weight_bits
        rows = [
            LayerRecord(
                layer=shape.name,
                kind=layer.kind,
                size=layer.costs.size,
                parameters=layer.costs.parameters,
                dense_parameters=shape.parameters,
                bytes=layer.costs.resident * bits // 8 + layer.costs.packed_bytes,
            )
            for shape, layer in self.named()
        ]
        shape, embedding = self.architecture.embedding, self.embedding
        if embedding is not None and shape is not None:
            costs = embedding.costs
            held = costs.resident * bits // 8 + costs.packed_bytes
            dense = embedding.dense_parameters
            rows.insert(0, LayerRecord(shape.name, embedding.kind, costs.size, costs.parameters, dense, held))
        return tuple(rows)

    def named(self) -> tuple[tuple[LayerShape, LayerPlan], ...]:
        """Return every layer of the model with its plan."""
        return tuple(zip(self.architecture.layers, self.layers, strict=True))


@dataclass(frozen=True)
class Change:
    """What one stage does to the layers or other parts."""

    stage: str
    method: str
    plan: Plan
    """As the stage sees it: its architecture is of the model that it is given, which an earlier stage may
    have made smaller, and its layers are what the stage makes of those."""
    is_healed: bool = False
    """Whether healing comes before it."""

    @property
    def key(self) -> str:
        return f"{self.method}{'*' if self.is_healed else ''}"
