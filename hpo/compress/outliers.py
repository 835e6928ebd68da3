"""How many outliers each block has, and what sparsity that earns it: OWL. Letters: B blocks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.preparation import Prepared
from hpo.compress.profile import Array
from hpo.compress.sparse_math import activations
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of


@dataclass(frozen=True)
class Outliers:
    """The share of each block's weights whose magnitude times the norm of their input is so many times the
    block's mean: the array ``blocks``, (B,).

    Source: OWL, Yin et al. 2023, arXiv:2310.05175.
    """

    times: int

    @property
    def name(self) -> str:
        return f"outliers-{self.times}"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        shares = torch.zeros(architecture.blocks, dtype=torch.float64)
        for block in range(architecture.blocks):
            layers = [layer for layer in architecture.layers if layer.block == block]
            shares[block] = self._share(model, layers, statistics) if layers else 0.0
        yield Prepared("blocks", arrays={"blocks": shares})

    def _share(self, model: nn.Module, layers: list[LayerShape], statistics: Statistics) -> float:
        scores = [
            activations(weight_of(model.get_submodule(layer.name)).detach(), statistics.gram(layer))
            for layer in layers
        ]
        weights = sum(layer.parameters for layer in layers)
        mean = sum(float(score.sum()) for score in scores) / weights
        return sum(int((score > self.times * mean).sum()) for score in scores) / weights


def spread_out(sparsity: float, shares_B: Array, weights_B: Array, spread: float) -> Array:
    """Return the sparsity of each block, (B,): less where the share of outliers is larger. The range is twice
    the spread, and the mean, by the weights of the blocks, is `sparsity`."""
    width = float(np.ptp(shares_B))
    kept = 2 * spread * (shares_B - shares_B.min()) / width if width else np.zeros(len(shares_B))
    mean = float(kept @ weights_B) / max(float(weights_B.sum()), 1.0)
    return np.asarray(sparsity - (kept - mean))
