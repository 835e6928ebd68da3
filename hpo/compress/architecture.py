"""The shape of a model, as compression sees it: its linear layers, and everything else in one sum."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

from hpo.compress.cache_plan import CacheShape

SMALLEST_SIDE = 16
"""Matrices with a side below this (routers, gates) are left alone: nothing is gained there."""


@dataclass(frozen=True)
class LayerShape:
    """A linear layer ``y = W x`` with W of shape (out_features, in_features), whatever class holds it."""

    name: str
    """Path of the module in the model, e.g. ``model.layers.0.mlp.up_proj``."""
    out_features: int
    in_features: int
    block: int
    """Index of the transformer block, from 0."""
    group: str
    """``attention`` or ``mlp``."""
    gram: str
    """Name of the layer whose input this one shares; its Gram matrix serves both."""

    @property
    def type(self) -> str:
        """The layer's role, e.g. ``up_proj``."""
        return self.name.rsplit(".", 1)[-1]

    @cached_property
    def parameters(self) -> int:
        """Weights of the dense layer, bias aside."""
        return self.out_features * self.in_features

    @cached_property
    def break_even_rank(self) -> int:
        return break_even_rank(self.out_features, self.in_features)


def break_even_rank(out_features: int, in_features: int) -> int:
    """Return the largest rank at which two factors hold fewer weights than the dense matrix, at least 1."""
    return max((out_features * in_features - 1) // (out_features + in_features), 1)


@dataclass(frozen=True)
class EmbeddingShape:
    """The token embedding, (vocabulary, width), and the output layer that may share its matrix."""

    name: str
    """Path of the module, e.g. ``model.embed_tokens``."""
    vocabulary: int
    width: int
    head: str
    """Path of the output layer, e.g. ``lm_head``; empty where the model has none of that shape."""
    tied: bool
    """Whether both are one matrix."""


@dataclass(frozen=True)
class Architecture:
    """A decoder-only model: linear layers inside its blocks, and the rest."""

    layers: tuple[LayerShape, ...]
    other_parameters: int
    """Embeddings, head, norms and biases; tied weights once."""
    other_bytes: int
    other_macs: int
    """Multiply-accumulates outside `layers` in one prefill of `context` tokens, batch 1."""
    context: int
    """Tokens of a prefill."""
    weight_bits: int
    """Bits of one weight of `layers` as loaded."""
    embedding: EmbeddingShape | None = None
    """None where it is no plain table of the whole width."""
    cache: tuple[CacheShape, ...] = ()
    """What each block adds to the key-value cache; empty where the model has no plain one."""

    @cached_property
    def linear_parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Layer types in order of first appearance."""
        return tuple(dict.fromkeys(layer.type for layer in self.layers))

    @cached_property
    def is_down(self) -> tuple[bool, ...]:
        """Whether each layer is the last of an MLP, of those under one parent module."""
        last = {layer.name.rpartition(".")[0]: layer.name for layer in self.layers if layer.group == "mlp"}
        names = set(last.values())
        return tuple(layer.name in names for layer in self.layers)

    @property
    def blocks(self) -> int:
        return 1 + max((layer.block for layer in self.layers), default=-1)

    def to_mapping(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        layers = tuple(LayerShape(**layer) for layer in mapping["layers"])
        given = mapping.get("embedding")
        embedding = EmbeddingShape(**given) if given else None
        cache = tuple(CacheShape(**shape) for shape in mapping.get("cache", ()))
        return cls(**{**mapping, "layers": layers, "embedding": embedding, "cache": cache})
