"""Which layers of a model a method touches: some types, in a span of blocks. Needs no torch."""

from pydantic import Field

from hpo.compress.architecture import Architecture
from hpo.compress.recipe import Knobs
from hpo.errors import Unsupported, did_you_mean


class SelectionKnobs(Knobs):
    """Types of layers and a span of blocks."""

    types: str = "all"
    """``attention``, ``mlp``, ``all``, or the name of one type of layer such as ``down_proj``."""
    first_block: int = Field(default=0, ge=0)
    """The first block that is touched, from 0."""
    last_block: int | None = Field(default=None, ge=0)
    """The last one; the model's last where it is not given."""


def selected(architecture: Architecture, knobs: SelectionKnobs) -> frozenset[str]:
    """Return the names of the layers to touch.

    Raises:
        Unsupported: the model has no such type of layer, or no such block.
    """
    allowed = ("all", "attention", "mlp", *architecture.types)
    if knobs.types not in allowed:
        raise Unsupported(f"no layers of type {knobs.types!r}", did_you_mean(knobs.types, allowed))
    end = architecture.blocks - 1
    last = end if knobs.last_block is None else knobs.last_block
    if not knobs.first_block <= last <= end:
        raise Unsupported(
            f"blocks {knobs.first_block} to {last} of a model whose blocks are 0 to {end}",
            "set first_block and last_block within them, the first not above the last",
        )
    return frozenset(
        layer.name
        for layer in architecture.layers
        if knobs.first_block <= layer.block <= last and knobs.types in ("all", layer.group, layer.type)
    )
