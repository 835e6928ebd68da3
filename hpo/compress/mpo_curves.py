"""What the bonds of each layer are worth, measured once: the prices by which bonds adapt.

How much of a layer's output its cores lose at some budgets of weights, as sliced (TT-SVD) and after a sweep;
and how far the model is from the dense one when the layer alone is cut to the budget that is tried. That
divergence grows about in proportion to the squared error, hence one such trial prices them all::

    foreseen divergence at a budget = that at the tried one * squared error there / that at the tried one

Shares follow from all layers' curves; see `hpo.compress.mpo_adapted`. Within a layer bonds stay even.

Schmidt values, such as a two-site step sees at a cut, foretell neither. G is far from a product over the
sites, and in the gauge of its partial traces the tails of two sites are 1.2 to 180 times what sweeps leave:
on the reference model, shares that followed them gave perplexity 6.4 at half of the weights, where even ones
gave 5.6 and these give 5.4. Within a layer, bonds of equal marginal tails lost up to 1.6 times as much of the
squared output as even ones. What sweeps themselves found best near the even bonds lost 2 per cent less on
average, and the perplexity was worse in three of four cases.

Letters: S shares tried, beside none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.compress import surgery
from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.layers import MpoLinear
from hpo.compress.mpo_basis import MpoBasis
from hpo.compress.mpo_bonds import Bonds, bonds_for_budget, largest_bond
from hpo.compress.mpo_math import sliced
from hpo.compress.mpo_plan import parameters_of
from hpo.compress.preparation import Prepared
from hpo.compress.sensitivity import TOKENS, beginning
from hpo.compress.statistics import Statistics
from hpo.compress.sweep_math import swept
from hpo.measure.likelihood import score
from hpo.models.text import Corpus

SHARES = (0.05, 0.1, 0.2, 0.35, 0.55, 0.8)
"""Shares of a layer's weights at which its cores are judged."""

_TRIED = 1
"""Which of them the divergence is measured at. A severe one: prices of milder cuts, and divergences measured
at every share, served worse once all layers were cut."""

_LEAST = 1e-9
"""A divergence below it counts as this, in nats per token."""

_EXACT = 1e-6
"""Squared errors below it count as this: nothing is gained there, and prices stay finite."""

WEIGHTS, SLICED, SWEPT = "@weights", "@sliced", "@swept"
"""After a layer's name: weights of its cores, ascending from none; the divergences foreseen there without
sweeps, and with them, in nats per token."""


@dataclass(frozen=True)
class BondCurves:
    """The divergence that each layer is foreseen to cost, by the weights of its cores; no tensors.

    Judging each layer cut alone is CompactifAI's profile (Tomut et al. 2024, arXiv:2401.14109); the errors
    are those of `hpo.compress.sweep_math`.
    """

    stored: MpoBasis

    @property
    def name(self) -> str:
        return f"{self.stored.name}-curves"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        text = beginning(statistics.corpus, TOKENS)
        for layer in architecture.layers:
            weight = surgery.weight_of(model.get_submodule(layer.name)).detach()
            gram = statistics.gram(layer).to(weight.device)
            found = self.stored.cut(layer, weight).tensors
            cores = [found[f"core{k}"] for k in range(len(found))]
            at_shares = [self._bonds_at(share, layer) for share in SHARES]
            tried = list(dict.fromkeys(at_shares))  # in a small layer some come twice
            fits = [swept(weight, gram, sliced(cores, bonds), 1, f"{layer.name}.weight") for bonds in tried]
            weights = [0, *(parameters_of(*self.stored.split(layer), bonds) for bonds in tried)]
            at = tried.index(at_shares[_TRIED])
            curves = {WEIGHTS: torch.tensor(weights, dtype=torch.float64)}
            for k, (kind, kept) in enumerate(((SLICED, sliced(cores, tried[at])), (SWEPT, fits[at].cores))):
                apart = max(_divergence(model, layer, kept, text), _LEAST)
                curves[kind] = _foreseen(apart, [fit.errors[k] for fit in fits], at)
            yield Prepared(layer.name, arrays={f"{layer.name}{kind}": v for kind, v in curves.items()})

    def _bonds_at(self, share: float, layer: LayerShape) -> Bonds:
        rule = self.stored.factorisation
        largest = largest_bond(layer.out_features, layer.in_features, self.stored.sites, rule)
        return bonds_for_budget(self.stored.split(layer), int(share * layer.parameters), largest)


def _foreseen(divergence: float, errors: Sequence[float], tried: int) -> Tensor:
    """Return the divergences at no weights, where the error is 1, and at those of the errors, (S + 1,)."""
    squares_S = torch.tensor([1.0, *errors], dtype=torch.float64).square().clamp(min=_EXACT)
    return squares_S * (divergence / squares_S[tried + 1])


def _divergence(model: nn.Module, layer: LayerShape, cores: Sequence[Tensor], text: Corpus) -> float:
    """Return KL(dense || model), in nats per token, of the model with one layer held as cores."""
    trial, old = surgery.shared_copy(model), model.get_submodule(layer.name)
    weight = surgery.weight_of(old)
    kept = [core.to(weight.device, weight.dtype).contiguous() for core in cores]
    surgery.replace(trial, layer.name, MpoLinear(kept, surgery.bias_of(old), "rebuild"))
    scores = score(trial, text.sequences, model)
    assert scores.kl is not None
    return float(scores.kl.sum() / scores.tokens.sum())
