"""Low-rank factors of every layer, nested in their rank.

    plain       left singular vectors of W              (truncated SVD, Eckart and Young 1936)
    whitened    left singular vectors of W G^(1/2)      (SVD-LLM, Wang et al. 2024, arXiv:2403.07378)
    asvd-0.5    left singular vectors of W D, D = diag(mean |x|)^0.5  (Yuan et al. 2023, arXiv:2312.05821)
    fwsvd       left singular vectors of D W, D from Fisher information (Hsu et al. 2022, arXiv:2207.00112)

G = X'X over the calibration text is the Gram matrix of a layer's inputs. Factors are kept up to the
break-even rank, hence never take more room than the dense layers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hpo.compress.architecture import Architecture
from hpo.compress.grams import is_wide
from hpo.compress.preparation import Preparation, Prepared
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of
from hpo.compress.svd_math import factor, factor_by_outputs, factor_scaled

LowRankBasis = Preparation
"""A preparation with tensors ``left`` (O, K) and ``right`` (K, I), and the singular values, by layer."""


@dataclass(frozen=True)
class SvdBasis:
    """``left[:, :r] @ right[:r]`` is the best factorisation of rank r, of W or of the layer's outputs."""

    name: Literal["plain", "whitened"]

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        for layer in architecture.layers:
            weight = weight_of(model.get_submodule(layer.name)).detach()
            keep, name = layer.break_even_rank, f"{layer.name}.weight"
            if self.name == "whitened" and is_wide(weight):
                left, right, singular = factor_by_outputs(weight, *statistics.outputs(layer), keep, name)
            else:
                gram = statistics.narrow_gram(layer) if self.name == "whitened" else None
                left, right, singular = factor(weight, gram, keep, name)
            yield Prepared(layer.name, {"left": left, "right": right}, {layer.name: singular})


@dataclass(frozen=True)
class AsvdBasis:
    """The best factorisation of rank r where each input channel counts by its mean magnitude to the alpha.

    ``alpha = 0`` would be plain; at 1 a channel counts in proportion to its magnitude.
    """

    alpha: float

    @property
    def name(self) -> str:
        return f"asvd-{self.alpha:g}"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        for layer in architecture.layers:
            weight = weight_of(model.get_submodule(layer.name)).detach()
            columns = statistics.magnitude(layer) ** self.alpha
            left, right, singular = factor_scaled(
                weight, None, columns, layer.break_even_rank, f"{layer.name}.weight"
            )
            yield Prepared(layer.name, {"left": left, "right": right}, {layer.name: singular})


@dataclass(frozen=True)
class FwsvdBasis:
    """The best factorisation of rank r where each output row counts by the root of its Fisher information."""

    name: Literal["fwsvd"] = "fwsvd"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        for layer in architecture.layers:
            weight = weight_of(model.get_submodule(layer.name)).detach()
            rows = statistics.row_fisher(layer).sqrt()
            left, right, singular = factor_scaled(
                weight, rows, None, layer.break_even_rank, f"{layer.name}.weight"
            )
            yield Prepared(layer.name, {"left": left, "right": right}, {layer.name: singular})


PLAIN = SvdBasis("plain")
WHITENED = SvdBasis("whitened")
FISHER = FwsvdBasis()
