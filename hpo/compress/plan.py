"""Plans: what a candidate does to the whole model, after rounding. Costs follow exactly; nothing is run."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.layer_plan import Costs, LayerPlan
from hpo.compress.recipe import Knobs
from hpo.trial import LayerRecord


class EmbeddingPlan(Protocol):
    """What becomes of the embedding: a frozen value."""

    @property
    def kind(self) -> str: ...

    @property
    def costs(self) -> Costs:
        """Of everything that takes the place of dense modules, the output layer included if it changes."""
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
    """In the order of ``architecture.layers``."""
    factorise: str = ""
    """Name of the method that changes the layers; empty if none does."""
    heal: HealPlan | None = None
    embed: str = ""
    """Name of the method that changes the embedding; empty if none does."""
    embedding: EmbeddingPlan | None = None
    train: TrainPlan | None = None

    @cached_property
    def is_dense(self) -> bool:
        layers_are = all(layer.kind == "dense" for layer in self.layers)
        return layers_are and self.embedding is None and self.train is None

    @cached_property
    def linear_parameters(self) -> int:
        return sum([layer.costs.parameters for layer in self.layers])

    @cached_property
    def _other(self) -> Costs:
        """Costs of everything but the layers."""
        a, embedding, heal = self.architecture, self.embedding, self.heal
        parameters, packed, macs = a.other_parameters, 0, a.other_macs
        if embedding is not None:
            parameters += embedding.costs.parameters - embedding.dense_parameters
            packed += embedding.costs.packed_bytes
            macs += embedding.costs.macs(a.context) - embedding.dense_macs_per_token * a.context
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
        if self.embedding is not None:
            resident += self.embedding.costs.resident - self.embedding.dense_parameters
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
            f"{self.embed}:{self.embedding.costs.key}" if self.embedding else "",
            self.factorise,
            self.heal.key if self.heal else "",
            *[layer.costs.key for layer in self.layers],
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
