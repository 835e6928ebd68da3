"""Every layer rounded to a grid, and the factors of what that loses, nested in their rank.

``left[:, :r] @ right[:r]`` is the best correction of rank r of the layer's outputs (EoRA, Liu et al. 2024,
arXiv:2410.21271). Factors are kept up to the break-even rank, hence never take more room than the dense
layers, beside the codes. Both sides of a rank are of equal norm, so that both can be trained alike.

Letters: O output features, I input features, R rank, K rank cut off.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.compress.architecture import Architecture
from hpo.compress.correction_math import weighted_error
from hpo.compress.grid import Grid
from hpo.compress.layers.packed import Packed, Rounded
from hpo.compress.preparation import Prepared
from hpo.compress.rounding import RoundToNearest
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of
from hpo.compress.svd_math import factor


@dataclass(frozen=True)
class Residual:
    """Of the weights rounded to `grid`.

    Its arrays hold the relative error of a layer's outputs that is left at rank 0, 1, ..., shape (K + 1,).
    """

    grid: Grid

    @property
    def name(self) -> str:
        return f"residual-{self.grid.key}"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        quantizer = RoundToNearest(self.grid)
        for layer in architecture.layers:
            weight = weight_of(model.get_submodule(layer.name)).detach().double()
            gram = statistics.gram(layer)
            backbone = quantizer.quantise(weight, gram)
            left, right, singular = factor(weight - backbone.dequantise(), gram, layer.break_even_rank)
            left, right = evened(left, right)
            tensors = {**backbone.state_dict(prefix="backbone."), "left": left, "right": right}
            lost = left_over(singular, weighted_error(weight, gram))
            yield Prepared(layer.name, tensors, {layer.name: lost})


def left_over(singular_K: Tensor, total: float) -> Tensor:
    """Return the root of the share of `total` in the singular values from each rank on, shape (K + 1,)."""
    energy = torch.cat([singular_K.double() ** 2, singular_K.new_zeros(1).double()])
    tail = energy.flip(0).cumsum(0).flip(0)
    return (tail / max(total, torch.finfo(torch.float64).tiny)).clamp(max=1).sqrt()


def evened(left_OR: Tensor, right_RI: Tensor) -> tuple[Tensor, Tensor]:
    """Return factors of the same product, column r of left as long as row r of right; slices stay slices."""
    lengths = torch.linalg.vector_norm(left_OR, dim=0), torch.linalg.vector_norm(right_RI, dim=1)
    alive = (lengths[0] > 0) & (lengths[1] > 0)
    scale = torch.where(alive, lengths[1] / torch.where(alive, lengths[0], 1.0), 1.0).sqrt()
    return left_OR * scale, right_RI / scale[:, None]


def rounded(
    tensors: Mapping[str, Tensor], part: str, grid: Grid, columns: int, device: torch.device
) -> Packed:
    """Return the matrix whose state was kept under `part`, on a CPU as a view of what was kept."""
    codes, scales = (tensors[f"{part}.{name}"].to(device) for name in ("codes", "scales"))
    offsets = None if grid.symmetric else tensors[f"{part}.offsets"].to(device)
    return Rounded(codes, scales, offsets, bits=grid.bits, group_size=grid.group_size, columns=columns)
