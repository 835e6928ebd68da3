"""How much the loss rises when one section of a model alone is cut."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.compress.architecture import Architecture
from hpo.compress.modegpt_basis import Narrowing
from hpo.compress.modegpt_cut import cut_attention, cut_mlp
from hpo.compress.modegpt_parts import Attention, Mlp, anatomy
from hpo.compress.modegpt_plan import Part
from hpo.compress.preparation import Prepared
from hpo.compress.sensitivity import TOKENS, beginning
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import shared_copy
from hpo.measure.quality import mean_nll

SHARES = (0.25, 0.5, 0.75, 0.9)
"""Shares of a section's units at which it is tried."""


@dataclass(frozen=True)
class NarrowingSensitivity:
    """The rise of the loss of calibration text, in nats a token, by section, at each of `SHARES`.

    Source: CompactifAI, Tomut et al. 2024, arXiv:2401.14109, does so for truncated layers.
    """

    basis: Narrowing

    @property
    def name(self) -> str:
        return sensitivity_of(self.basis.name)

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        text = beginning(statistics.corpus, TOKENS)
        before = mean_nll(model, text)
        shapes = {layer.name: layer for layer in architecture.layers}
        parts = anatomy(model, architecture).parts
        for piece in self.basis.prepare(model, architecture, statistics):
            for part in parts:
                if part.path == piece.name:
                    gram = statistics.gram(shapes[part.output])
                    for section in _sections(part):
                        rises = [
                            mean_nll(_trial(model, part, section, share, piece.tensors, gram), text) - before
                            for share in SHARES
                        ]
                        key = f"{part.path}@{section}"
                        yield Prepared(key, arrays={key: torch.tensor(rises, dtype=torch.float64)})


def sensitivity_of(basis: str) -> str:
    """Return the name of the preparation that holds the sensitivities of a basis."""
    return f"{basis}.sensitivity"


def _sections(part: Mlp | Attention) -> tuple[Part, ...]:
    return ("mlp",) if isinstance(part, Mlp) else ("query_key", "value")


def _trial(
    model: nn.Module,
    part: Mlp | Attention,
    section: Part,
    share: float,
    tensors: Mapping[str, Tensor],
    gram_II: Tensor,
) -> nn.Module:
    """Return a copy of the model with one section cut."""
    trial = shared_copy(model)
    if isinstance(part, Mlp):
        cut_mlp(trial, part, tensors["order"], _kept(part.width, share), gram_II)
    else:
        size = part.heads.size
        query_key = _kept(part.units, share) * part.unit if section == "query_key" else size
        value = _kept(size, share) if section == "value" else size
        cut_attention(trial, part, tensors, query_key, value, gram_II)
    return trial.eval()


def _kept(units: int, share: float) -> int:
    """Return how many units come nearest to a share of them, at least 1 and not all."""
    return min(max(round(share * units), 1), units - 1)
