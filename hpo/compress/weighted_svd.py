"""Low-rank factorisation that weighs input channels (ASVD) or output rows (FWSVD) before the SVD."""

from collections.abc import Mapping, Sequence

from pydantic import Field, field_validator

from hpo.compress.bases import FISHER, AsvdBasis, LowRankBasis
from hpo.compress.low_rank import LowRankKnobs, LowRankMethod
from hpo.compress.recipe import Knobs
from hpo.space import Value

ALPHAS = (0.25, 0.5, 0.75, 1.0)
"""What alpha may be: factors are cached for each."""


class AsvdKnobs(LowRankKnobs):
    """With how much the channels' magnitudes count."""

    alpha: float = Field(default=0.5)
    """A channel counts by its mean magnitude to this power: 0.25, 0.5, 0.75 or 1."""

    @field_validator("alpha")
    @classmethod
    def _on_the_grid(cls, alpha: float) -> float:
        if alpha not in ALPHAS:
            raise ValueError(f"alpha is one of {', '.join(map(str, ALPHAS))}, not {alpha:g}")
        return alpha


class Asvd(LowRankMethod):
    """Truncated SVD with input channels weighted by their mean magnitude on calibration text.

    Source: ASVD, Yuan et al. 2023, arXiv:2312.05821; its search for ranks is `allocation: sensitivity`.
    """

    summary = "SVD with input channels weighted by their mean activation"
    paper = "ASVD, arXiv:2312.05821"
    knob_type = AsvdKnobs
    default = AsvdBasis(0.5)

    def basis(self, knobs: Knobs) -> LowRankBasis:
        assert isinstance(knobs, AsvdKnobs)
        return AsvdBasis(knobs.alpha)

    def bases(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[LowRankBasis, ...]:
        # A space that gives a range names no values: any of the grid may come.
        return tuple(AsvdBasis(float(alpha)) for alpha in knob_values["alpha"] or ALPHAS)


class Fwsvd(LowRankMethod):
    """Truncated SVD with output rows weighted by the Fisher information of their weights.

    Source: FWSVD, Hsu et al. 2022, arXiv:2207.00112.
    """

    summary = "SVD with output rows weighted by Fisher information"
    paper = "FWSVD, arXiv:2207.00112"
    default = FISHER
