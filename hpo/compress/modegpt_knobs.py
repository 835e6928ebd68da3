"""The knobs of MoDeGPT."""

from typing import Literal

from pydantic import Field

from hpo.compress.allocation import Multiplier
from hpo.compress.modegpt_plan import Order
from hpo.compress.recipe import Knobs


class ModegptKnobs(Knobs):
    """How much to keep, and how to spread it."""

    keep_ratio: float = Field(gt=0, lt=1)
    """Share of the linear layers' weights to keep."""
    order: Order = "elimination"
    """Units of an MLP that are kept: the highest ridge leverage scores, as in the paper, or those left when
    the one that costs the outputs least is dropped, over and over."""
    allocation: Literal["uniform", "softmax", "sensitivity"] = "uniform"
    """The same share everywhere; by how much each block changes its input; the least measured rise of the
    loss."""
    floor: float = Field(default=0.5, ge=0, le=1)
    """No part below this share of its uniform size."""
    temperature: float = Field(default=0.1, gt=0, le=100)
    """Of softmax allocation; the higher, the nearer to uniform."""
    query_key: Multiplier = 1.5
    """Multiplies the dimensions of queries and keys before all sizes are fitted to `keep_ratio`. Nothing
    makes up for those that are dropped, so more are kept: at 40 % the reference model has perplexity 5.9,
    with 1 it has 7.0. Where they are not as many as those of values, processors lack a fused attention."""
    value: Multiplier = 1.0
    """The same for the dimensions of values."""
    block_weight: tuple[Multiplier, ...] = ()
    """The same for everything in a block: one number a block, or none at all."""
    protect_first: int = Field(default=0, ge=0)
    """So many blocks at the beginning stay as they are; their weights count as kept."""
    protect_last: int = Field(default=0, ge=0)
    """So many blocks at the end stay as they are."""
    multiple: int = Field(default=1, ge=1, le=256)
    """Round the units of MLPs to multiples of this, which hardware likes; halved while `keep_ratio` has no
    room."""
    head_multiple: int = Field(default=1, ge=1, le=64)
    """The same for the dimensions of heads. Rotary pairs make it at least 2 for queries and keys."""
