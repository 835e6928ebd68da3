"""The stage ``cache``: how the model remembers keys and values of earlier tokens."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from hpo.compress.cache_plan import CachePlan, CacheShape
from hpo.compress.recipe import Knobs
from hpo.errors import Unsupported


class KiviKnobs(Knobs):
    """Bits, groups and what stays in full precision."""

    bits: Literal[2, 4, 8] = 4
    group_size: int = Field(default=32, ge=1, le=1024)
    """Tokens of a key channel, and channels of a value, that share a scale and an offset."""
    residual: int = Field(default=32, ge=0, le=4096)
    """At least so many of the newest tokens stay in full precision."""


class Kivi:
    """Keys rounded channel by channel over groups of tokens, values token by token; the newest stay.

    Attention reads what is stored, in a prefill too, so quality is that of decoding and latencies carry
    the packing. The groups of a prompt are also read in few bits by their own tokens, which a decoder would
    have read in full: a little is lost that decoding keeps.

    Source: KIVI, Liu et al. 2024, arXiv:2402.02750.
    """

    stage: ClassVar[Literal["cache"]] = "cache"
    summary: ClassVar[str] = (
        "key-value cache in few bits: keys by channel, values by token, the newest in full"
    )
    paper: ClassVar[str] = "KIVI, arXiv:2402.02750"
    knob_type: ClassVar[type[Knobs]] = KiviKnobs

    def plan(self, knobs: Knobs, shapes: Sequence[CacheShape]) -> CachePlan:
        """Return how the cache is held, given what each block adds to it.

        Raises:
            Unsupported: the model has no plain cache, or its heads do not fill whole bytes.
        """
        assert isinstance(knobs, KiviKnobs)
        if not shapes:
            raise Unsupported(
                "this model's cache is no plain one of keys and values", "leave the stage cache out"
            )
        plan = CachePlan(knobs.bits, knobs.group_size, knobs.residual)
        for shape in shapes:
            if fault := plan.fault(shape):
                raise Unsupported(f"block {shape.block}: {fault}", "give more bits (cache.bits: 8)")
        return plan
