"""Attention with fewer heads, for classes that do not read their number off the layers' shapes."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from hpo.compress.layers.compressed import Compressed
from hpo.compress.layers.narrow import NarrowAttention, NarrowLinear
from hpo.compress.layers.wiring import WIRINGS, Heads


class FewerHeads(NarrowAttention):
    """Attention with fewer heads of the size that they had; its layers are narrower ones of their own."""

    kind = "fewer_heads"

    def __init__(self, old: nn.Module, layers: Mapping[str, NarrowLinear], queries: int, keys: int) -> None:
        dense = Heads.of(old, WIRINGS[type(old).__name__])
        super().__init__(old, layers, None, replace(dense, queries=queries, keys=keys))
        self.query_key = self.value = dense.size

    def factors(self) -> list[nn.Parameter]:
        """The layers name their own."""
        return []

    def size(self) -> dict[str, Any]:
        return {"queries": self.heads.queries, "keys": self.heads.keys}

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "FewerHeads":
        """Its layers are those of `old` at first; each has an entry of its own and is replaced."""
        return cls(old, {}, size["queries"], size["keys"])

    def as_dense(self, old: nn.Module) -> nn.Module:
        """Heads of zeros stand last."""
        dense = copy.deepcopy(old, {id(p): p for p in old.parameters()})
        for name in (*self.wiring.inputs, self.wiring.output):
            layer = self.get_submodule(name)
            if isinstance(layer, Compressed):
                setattr(dense, name, layer.as_dense(old.get_submodule(name)))
        return dense
