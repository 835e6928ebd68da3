"""How attention classes of transformers are made: names of their layers, order of rows, heads.

Letters: O output features, I input features.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Wiring:
    """How a class of attention names and orders what it is made of."""

    inputs: tuple[str, ...]
    """Layers of queries, keys and values, or the one of all three."""
    output: str
    is_rotary: bool = False
    by_head: bool = False
    """Whether the one layer's rows go head by head: its queries, its keys, its values."""

    @property
    def is_fused(self) -> bool:
        return len(self.inputs) == 1

    def rows(self, part: int, heads: int, size: int) -> tuple[int, Tensor]:
        """Return which of `inputs` holds the queries (part 0), keys (1) or values (2), and the rows at which
        they stand there, (heads, size)."""
        head, dim = torch.arange(heads)[:, None], torch.arange(size)
        if not self.is_fused:
            return part, head * size + dim
        if self.by_head:
            return 0, (head * 3 + part) * size + dim
        return 0, (part * heads + head) * size + dim


_APART = ("q_proj", "k_proj", "v_proj")

WIRINGS: dict[str, Wiring] = {
    "LlamaAttention": Wiring(_APART, "o_proj", is_rotary=True),
    "MistralAttention": Wiring(_APART, "o_proj", is_rotary=True),
    "Qwen2Attention": Wiring(_APART, "o_proj", is_rotary=True),
    "OPTAttention": Wiring(_APART, "out_proj"),
    "GPT2Attention": Wiring(("c_attn",), "c_proj"),
    "GPTNeoXAttention": Wiring(("query_key_value",), "dense", is_rotary=True, by_head=True),
}
"""By the name of the class in transformers."""


@dataclass(frozen=True)
class Heads:
    """The heads of a dense attention."""

    queries: int
    keys: int
    """And as many values; a divisor of `queries`."""
    size: int
    rotary: int
    """Dimensions of a head that are rotated, the first ones: i together with i + rotary / 2."""

    @classmethod
    def of(cls, attention: nn.Module, wiring: Wiring) -> "Heads":
        """Read them off an attention of transformers."""
        config: Any = attention.config
        queries = int(config.num_attention_heads)
        size = features_of(attention.get_submodule(wiring.output))[1] // queries
        rotary = int(getattr(attention, "rotary_ndims", size)) if wiring.is_rotary else 0
        keys = queries if wiring.is_fused else int(getattr(config, "num_key_value_heads", None) or queries)
        return cls(queries, keys, size, rotary)

    def pairs(self) -> Tensor:
        """Return the two dimensions of each pair that must stay together, (size / 2, 2). Those that are not
        rotated, if any, come last, and could be paired in any way."""
        turned, other = torch.arange(self.rotary), torch.arange(self.rotary, self.size)
        return torch.cat([turned.reshape(2, -1).T, other.reshape(2, -1).T])


def narrow_shapes(
    wiring: Wiring, heads: Heads, query_key: int, value: int
) -> dict[str, tuple[int | None, int | None]]:
    """Return rows and columns of each layer that changes with such head sizes; None for all there are. A
    layer that holds queries, keys and values changes in any case: its rows are put in another order."""
    rows = (heads.queries * query_key, heads.keys * query_key, heads.keys * value)
    fewer = (query_key < heads.size, query_key < heads.size, value < heads.size)
    found: dict[str, tuple[int | None, int | None]] = {}
    if wiring.is_fused:
        found[wiring.inputs[0]] = (sum(rows), None)
    else:
        found |= {name: (n, None) for name, n, less in zip(wiring.inputs, rows, fewer, strict=True) if less}
    if value < heads.size:
        found[wiring.output] = (None, heads.queries * value)
    return found


def features_of(layer: nn.Module) -> tuple[int, int]:
    """Return output and input features of a Linear, or of GPT-2's Conv1D."""
    rows, columns = layer.get_parameter("weight").shape
    return (rows, columns) if isinstance(layer, nn.Linear) else (columns, rows)
