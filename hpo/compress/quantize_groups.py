"""What methods of the stage ``quantize`` share whose scales are of groups, whatever lies on them.

Letters: O output features (rows), I input features (columns), G groups of a row, S columns of a group.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from hpo.compress.layer_plan import LayerPlan
from hpo.compress.quantize import Quantize, QuantizeKnobs
from hpo.compress.recipe import Knobs
from hpo.errors import Unsupported


class GroupKnobs(QuantizeKnobs):
    """The groups."""

    group_size: int = Field(default=64, ge=0, le=4096)
    """Weights of a row that share a scale; 0: all of them."""
    last_group: Literal["refuse", "short"] = "refuse"
    """What becomes of a row that the group size does not divide: it is refused, or its last group is
    shorter, which no kernel takes but the portable one."""


class QuantizeInGroups(Quantize):
    """Base of such methods."""

    def check(self, name: str, layer: LayerPlan, knobs: Knobs) -> None:
        assert isinstance(knobs, GroupKnobs)
        if not knobs.group_size or knobs.last_group == "short":
            return
        for _, columns in layer.matrices:
            if columns % knobs.group_size:
                raise Unsupported(
                    f"{name}: groups of {knobs.group_size} do not divide a row of {columns}",
                    "give another group_size (0: whole rows), or last_group: short",
                )


def in_groups(weight_OI: Tensor, group_size: int) -> Tensor:
    """Return (O, G, S); group size 0 stands for whole rows. A short last group is filled with zeros."""
    rows, columns = weight_OI.shape
    size = group_size or columns
    return functional.pad(weight_OI, (0, -columns % size)).reshape(rows, -1, size)
