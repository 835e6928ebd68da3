"""The knobs of methods that remove heads and MLP units."""

from typing import Literal

from pydantic import Field

from hpo.compress.allocation import Multiplier
from hpo.compress.recipe import Knobs

Structure = Literal["uniform", "global"]


class PruneKnobs(Knobs):
    """How much to keep, and how to spread it."""

    keep_ratio: float = Field(gt=0, lt=1)
    """Share of the linear layers' weights to keep."""
    structure: Structure = "uniform"
    """Every attention and every MLP keeps the same share of its items, or one threshold divides the heads and
    units of the whole model (UL-UM and AL-AM in FLAP's paper)."""
    heads: Literal["group", "single"] = "group"
    """Heads that go together: a key-value head with all query heads that share it, or each by itself, which
    only a model without shared ones allows."""
    compensate: bool = False
    """Add what the removed heads and units gave on average as a bias of the layer that read them."""
    attention: Multiplier = 1.0
    """Multiplies the number of heads before all sizes are fitted to `keep_ratio`."""
    mlp: Multiplier = 1.0
    """The same for the number of units."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """No attention or MLP below this share of its uniform size."""
    protect_first: int = Field(default=0, ge=0)
    """So many blocks at the beginning stay as they are; their weights count as kept."""
    protect_last: int = Field(default=0, ge=0)
    """So many blocks at the end stay as they are."""
    multiple: int = Field(default=1, ge=1, le=256)
    """Round the units of MLPs to multiples of this, which hardware likes; halved while `keep_ratio` has no
    room."""
