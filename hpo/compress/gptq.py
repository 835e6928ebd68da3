"""GPTQ: every column rounded in turn, the columns after it making up for what that loses."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from hpo.compress.gptq_math import gptq
from hpo.compress.grid import Grid
from hpo.compress.layers.packed import Rounded
from hpo.compress.quantize import GridKnobs, GridQuantize
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import RoundToNearest, check
from hpo.compress.svd_math import finite


class GptqKnobs(GridKnobs):
    """The grid, and how columns follow one another."""

    act_order: bool = True
    """Columns that read the largest inputs first, each on the grid that its group has from the start.
    Otherwise in their own order, the grid of a group fitted when its turn comes."""
    clip: bool = True
    """Whether it is tried to narrow the range of each group, and kept in layers whose outputs gain by it."""
    damping: float = Field(default=0.01, gt=0, le=1)
    """Added to the diagonal of the inputs' Gram matrix, as a share of its mean: the higher, the less a column
    makes up for others."""


@dataclass(frozen=True)
class GptqQuantizer:
    """Fits codes to a layer's inputs. Without a Gram matrix no column can make up for another, and what is
    left of the method is rounding to nearest."""

    grid: Grid
    act_order: bool = True
    clip: bool = True
    damping: float = 0.01
    needs_gram: ClassVar[bool] = True

    @property
    def key(self) -> str:
        order = "" if self.act_order else "plain"
        return f"gptq{self.damping:g}{order}{'' if self.clip else 'whole'}-"

    @property
    def format(self) -> Grid:
        return self.grid

    @property
    def noise(self) -> float:
        return 0.8 / float(2**self.grid.bits)

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> Rounded:
        """Return the weight on its grid.

        Raises:
            NonFinite: the weight or the Gram matrix holds NaN or infinity, or corrections grew beyond
                float16.
            Unsupported: a weight is beyond float16, in which scales are kept.
        """
        if gram_II is None:
            return RoundToNearest(self.grid).quantise(weight_OI)
        check(weight_OI)
        gram = finite(gram_II, "the Gram matrix of a layer's inputs")
        return gptq(
            weight_OI, gram, self.grid, damping=self.damping, act_order=self.act_order, clip=self.clip
        )


class Gptq(GridQuantize):
    """Rounding with feedback: weights not rounded yet move so that the layer's outputs change least.

    Source: GPTQ, Frantar et al. 2022, arXiv:2210.17323.
    """

    summary: ClassVar[str] = "columns rounded in turn, later ones making up for the error (GPTQ)"
    paper: ClassVar[str] = "GPTQ, Frantar et al. 2022, arXiv:2210.17323"
    knob_type: ClassVar[type[Knobs]] = GptqKnobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        assert isinstance(knobs, GptqKnobs)
        return GptqQuantizer(knobs.grid, knobs.act_order, knobs.clip, knobs.damping)
