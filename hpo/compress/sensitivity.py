"""What allocation rules go by, measured once a model: the loss each layer costs, the weight of each block."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor, nn

from hpo.compress import surgery
from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.bases import LowRankBasis
from hpo.compress.layers import LowRankLinear
from hpo.compress.preparation import Prepared
from hpo.compress.statistics import Statistics
from hpo.measure.quality import mean_nll
from hpo.models.text import Corpus

SHARES = (0.1, 0.3, 0.5, 0.7)
"""Shares of a layer's weights at which its truncation is tried."""

TOKENS = 4096
"""At most so much calibration text decides: every layer is judged as many times as there are shares."""


@dataclass(frozen=True)
class Sensitivity:
    """How much the loss of calibration text rises, in nats a token, when one layer alone is truncated.

    Source: CompactifAI, Tomut et al. 2024, arXiv:2401.14109; ASVD, Yuan et al. 2023, arXiv:2312.05821.
    """

    basis: LowRankBasis

    @property
    def name(self) -> str:
        return sensitivity_of(self.basis.name)

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        text = beginning(statistics.corpus, TOKENS)
        before = mean_nll(model, text)
        shapes = {layer.name: layer for layer in architecture.layers}
        for piece in self.basis.prepare(model, architecture, statistics):
            left, right = piece.tensors["left"], piece.tensors["right"]
            trial = surgery.shared_copy(model)
            rises = []
            for rank in ranks_tried(shapes[piece.name]):
                old = model.get_submodule(piece.name)
                cut = _cut(left, right, rank, next(old.parameters()).dtype, old)
                surgery.replace(trial, piece.name, cut)
                rises.append(mean_nll(trial, text) - before)
            yield Prepared(piece.name, arrays={piece.name: torch.tensor(rises, dtype=torch.float64)})


@dataclass(frozen=True)
class BlockInfluence:
    """How much each block turns what passes through it; see `hpo.compress.influence`."""

    name: str = "block_influence"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        yield Prepared("blocks", arrays={"influence": statistics.block_influence})


BLOCK_INFLUENCE = BlockInfluence()


def sensitivity_of(basis: str) -> str:
    """Return the name of the preparation that holds a basis' sensitivities."""
    return f"{basis}.sensitivity"


def ranks_tried(layer: LayerShape) -> list[int]:
    """Return the rank nearest to keeping each of `SHARES` of a layer's weights, at least 1."""
    top = layer.parameters / (layer.out_features + layer.in_features)
    return [min(max(round(share * top), 1), layer.break_even_rank) for share in SHARES]


def beginning(corpus: Corpus, tokens: int) -> Corpus:
    """Return the first sequences of a text that have so many tokens together, but at least one."""
    ends = accumulate(map(len, corpus.sequences))
    count = sum(1 for end in ends if end <= tokens)
    return replace(corpus, sequences=corpus.sequences[: max(count, 1)])


def _cut(left_OK: Tensor, right_KI: Tensor, rank: int, dtype: torch.dtype, old: nn.Module) -> LowRankLinear:
    left, right = left_OK[:, :rank].to(dtype), right_KI[:rank].to(dtype)
    return LowRankLinear(left.contiguous(), right.contiguous(), surgery.bias_of(old))
