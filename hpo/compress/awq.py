"""AWQ: columns that read large inputs are scaled up before they are rounded."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from hpo.compress.awq_grid import ScaledGrid
from hpo.compress.awq_math import awq
from hpo.compress.grid import Grid
from hpo.compress.layers.scaled import Scaled
from hpo.compress.quantize import GridKnobs, GridQuantize
from hpo.compress.quantizer import Quantizer
from hpo.compress.recipe import Knobs
from hpo.compress.rounding import check
from hpo.compress.svd_math import finite


class AwqKnobs(GridKnobs):
    """The grid, and what is searched."""

    clip: bool = True
    """Whether the range of each group is narrowed where the layer's outputs gain by it."""
    alpha_steps: int = Field(default=20, ge=1, le=100)
    """Steps in which the power of the inputs' size goes from 0, no scaling, to 1."""


@dataclass(frozen=True)
class AwqQuantizer:
    """Finds the scales of columns, and clipped ranges, with the least error of a layer's outputs.

    What the method asks of the inputs is the size of each channel. The paper takes the mean of |x|; this
    takes the root of the mean of x^2, which the Gram matrix holds on its diagonal. Up to the shape of a
    channel's distribution the two are in proportion, and alpha is searched anyway. Without a Gram matrix
    nothing is scaled, and clipping goes by the error of the weights.
    """

    grid: Grid
    clip: bool = True
    alpha_steps: int = 20
    needs_gram: ClassVar[bool] = True

    @property
    def key(self) -> str:
        return f"awq{self.alpha_steps}{'' if self.clip else 'whole'}-"

    @property
    def format(self) -> ScaledGrid:
        return ScaledGrid(self.grid)

    @property
    def noise(self) -> float:
        return 1.0 / float(2**self.grid.bits)

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> Scaled:
        """Return the weight on its grid, its columns scaled.

        Raises:
            NonFinite: the weight or the Gram matrix holds NaN or infinity.
            Unsupported: a weight is beyond float16, in which scales are kept.
        """
        check(weight_OI)
        gram = None if gram_II is None else finite(gram_II, "the Gram matrix of a layer's inputs")
        return awq(weight_OI, gram, self.grid, steps=self.alpha_steps, clip=self.clip)


class Awq(GridQuantize):
    """Rounding to nearest of columns scaled by what they read, with scales kept beside the codes.

    The paper folds scales into the layer before; kept here, at two bytes a column, they are each layer's own.

    Source: AWQ, Lin et al. 2023, arXiv:2306.00978.
    """

    summary: ClassVar[str] = "columns scaled by the size of their inputs, then rounded to nearest (AWQ)"
    paper: ClassVar[str] = "AWQ, Lin et al. 2023, arXiv:2306.00978"
    knob_type: ClassVar[type[Knobs]] = AwqKnobs

    def quantizer(self, knobs: Knobs) -> Quantizer:
        assert isinstance(knobs, AwqKnobs)
        return AwqQuantizer(knobs.grid, knobs.clip, knobs.alpha_steps)
