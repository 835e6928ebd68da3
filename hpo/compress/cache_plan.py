"""Plans of the key-value cache: how it is held, and its exact bytes. Needs no torch."""

from dataclasses import dataclass
from math import ceil

from hpo.errors import Unsupported

_HALF = 2
"""Bytes of a scale or an offset: float16."""


@dataclass(frozen=True)
class CacheShape:
    """What one block adds to the cache for each token."""

    block: int
    heads: int
    """Key-value heads."""
    key_size: int
    """Dimensions of a key of one head."""
    value_size: int

    def bytes(self, tokens: int, width_bits: int) -> int:
        """Return the bytes of one sequence in full precision."""
        return tokens * self.heads * (self.key_size + self.value_size) * width_bits // 8


@dataclass(frozen=True)
class CachePlan:
    """Groups of tokens in few bits, the newest in full precision; see `hpo.compress.layers.kv_cache`.

    Raises:
        Unsupported: the bits are none that can be packed, or a group or the rest is too small.
    """

    bits: int
    group_size: int
    """Tokens of a key channel, and channels of a value, that share a scale and an offset."""
    residual: int
    """At least so many of the newest tokens stay as they are."""

    def __post_init__(self) -> None:
        if self.bits not in (2, 4, 8):
            raise Unsupported(f"a cache of {self.bits} bits", "allowed: 2, 4, 8")
        if self.group_size < 1 or self.residual < 0:
            raise Unsupported(
                f"groups of {self.group_size} tokens and {self.residual} left as they are",
                "allowed: groups from 1, a rest from 0",
            )

    @property
    def key(self) -> str:
        return f"kv{self.bits}g{self.group_size}r{self.residual}"

    def packed_tokens(self, tokens: int) -> int:
        """Return how many of so many tokens are in few bits."""
        return max(tokens - self.residual, 0) // self.group_size * self.group_size

    def bytes(self, shape: CacheShape, tokens: int, width_bits: int) -> int:
        """Return the bytes that one sequence of so many tokens takes in one block."""
        packed = self.packed_tokens(tokens)
        a_key = packed * shape.key_size * self.bits // 8
        a_key += packed // self.group_size * shape.key_size * 2 * _HALF
        groups = ceil(shape.value_size / min(self.group_size, shape.value_size))
        a_value = packed * (shape.value_size * self.bits // 8 + groups * 2 * _HALF)
        return shape.heads * (a_key + a_value) + shape.bytes(tokens - packed, width_bits)

    def fault(self, shape: CacheShape) -> str:
        """Return why a block's cache cannot be held so; empty if it can."""
        for what, size in (("keys", shape.key_size), ("values", shape.value_size)):
            if size * self.bits % 8:
                return f"{what} of {size} dimensions in {self.bits} bits do not fill whole bytes"
        return ""
