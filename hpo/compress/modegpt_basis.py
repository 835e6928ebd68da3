"""What MoDeGPT needs of a model once: in which order units are kept, and encoders of the value heads.

Letters: I input features, H heads, D dimensions of a head, U units.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.grams import watching
from hpo.compress.modegpt_math import (
    centred,
    elimination_order,
    leverage_order,
    losses_in_order,
    output_energy,
    score_losses,
    value_encoder,
)
from hpo.compress.modegpt_parts import Attention, Mlp, anatomy
from hpo.compress.modegpt_plan import Grain, Order
from hpo.compress.preparation import Prepared
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of
from hpo.compress.svd_math import finite
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus


@dataclass(frozen=True)
class Narrowing:
    """Orders of everything that can be cut, the units kept longest first.

    An MLP has ``order`` (I,); an attention ``order`` of rotary pairs or dimensions (H, U) and ``encoder``
    (H, D, D) by key-value head. The arrays are what plans go by, see `hpo.compress.modegpt_layout`.
    """

    order: Order
    """Of the units of MLPs."""

    @property
    def name(self) -> str:
        return f"modegpt-{self.order}"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        found = anatomy(model, architecture)
        shapes = {layer.name: layer for layer in architecture.layers}
        yield Prepared("unknown", arrays={f"{n}@{x}": torch.zeros(1) for n, x in found.unknown.items()})
        attentions = [part for part in found.parts if isinstance(part, Attention)]
        sums = _input_sums(model, statistics.corpus, attentions)
        for part in found.parts:
            if isinstance(part, Mlp):
                yield self._mlp(part, model, shapes, statistics)
            else:
                yield _attention(part, model, shapes, statistics, sums.get(part.inputs[0]))

    def _mlp(
        self, mlp: Mlp, model: nn.Module, shapes: Mapping[str, LayerShape], statistics: Statistics
    ) -> Prepared:
        name = f"{mlp.output}.weight"
        weight = weight_of(model.get_submodule(mlp.output)).detach()
        gram = statistics.gram(shapes[mlp.output])
        if self.order == "leverage":
            order = leverage_order(gram, f"the inputs of {name}")
        else:
            order = elimination_order(weight, gram, name)
        losses = losses_in_order(weight, gram, order)
        arrays = {f"{mlp.path}@mlp": losses, **_grains(mlp.grains(shapes, model))}
        return Prepared(mlp.path, {"order": order}, arrays)


def _attention(
    attention: Attention,
    model: nn.Module,
    shapes: Mapping[str, LayerShape],
    statistics: Statistics,
    input_sum_I: Tensor | None,
) -> Prepared:
    gram = statistics.gram(shapes[attention.inputs[0]])
    carried_HU = _carried(attention, model, gram, input_sum_I, statistics.corpus.tokens)
    encoder_HDD, spared_HD = _encoders(attention, model, statistics.gram(shapes[attention.output]))
    arrays = {
        f"{attention.path}@query_key": carried_HU.square().sort(1, descending=True).values.sum(0),
        f"{attention.path}@value": spared_HD.sum(0),
        **_grains(attention.grains(model)),
    }
    order = carried_HU.argsort(stable=True, dim=1, descending=True)
    return Prepared(attention.path, {"order": order, "encoder": encoder_HDD}, arrays)


def _carried(
    attention: Attention, model: nn.Module, gram_II: Tensor, input_sum_I: Tensor | None, tokens: int
) -> Tensor:
    """Return what each rotary pair or dimension carries of the scores, by key head, (H, U)."""
    heads, is_rotary = attention.heads, attention.wiring.is_rotary
    query_HD = _energy(attention, model, 0, gram_II, input_sum_I, tokens)
    if is_rotary or input_sum_I is None:
        key_HD = _energy(attention, model, 1, gram_II, input_sum_I, tokens)
    else:
        # What is the same in all keys moves all scores of a query alike, which softmax does not see.
        key_HD = _energy(attention, model, 1, centred(gram_II, input_sum_I, tokens), None, tokens)
    pairs = heads.pairs().to(gram_II.device) if is_rotary else None
    shared = query_HD.unflatten(0, (heads.keys, -1))
    return torch.stack([score_losses(q, k, pairs) for q, k in zip(shared, key_HD, strict=True)])


def _energy(
    attention: Attention, model: nn.Module, part: int, gram_II: Tensor, sum_I: Tensor | None, tokens: int
) -> Tensor:
    weight_HDI, bias_HD = attention.head_weight(model, part)
    bias = None if bias_HD is None else bias_HD.flatten()
    finite(weight_HDI, f"{attention.path}, queries or keys")
    return output_energy(weight_HDI.flatten(0, 1), gram_II, bias, sum_I, tokens).view(weight_HDI.shape[:2])


def _encoders(attention: Attention, model: nn.Module, gram_II: Tensor) -> tuple[Tensor, Tensor]:
    """Return the encoder of each value head, (H, D, D), and what its rows in turn spare, (H, D)."""
    heads, name = attention.heads, f"{attention.output}.weight"
    weight_OI = weight_of(model.get_submodule(attention.output)).detach()
    weight_GHOD = weight_OI.unflatten(1, (heads.keys, -1, heads.size)).permute(1, 2, 0, 3)
    blocks = gram_II.unflatten(0, (-1, heads.size)).unflatten(-1, (-1, heads.size))  # head, D, head, D
    gram_GHDD = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1).unflatten(0, (heads.keys, -1))
    found = [value_encoder(w, g, name) for w, g in zip(weight_GHOD, gram_GHDD, strict=True)]
    return torch.stack([encoder for encoder, _ in found]), torch.stack([spared for _, spared in found])


def _input_sums(model: nn.Module, corpus: Corpus, attentions: Iterable[Attention]) -> dict[str, Tensor]:
    """Run the calibration text; return the sum of what an attention reads, (I,) float64, where it matters:
    beside a bias, and where no rotation tells apart the same key at two places."""
    names = [a.inputs[0] for a in attentions if not a.wiring.is_rotary or a.has_bias(model)]
    sums: dict[str, Tensor] = {}

    def add(name: str, x: Tensor) -> None:
        total = x.reshape(-1, x.shape[-1]).sum(0, dtype=torch.float64)
        sums[name] = sums[name] + total if name in sums else total

    node, device = QuietNode(), next(model.parameters()).device
    with watching([(name, model.get_submodule(name)) for name in names], add), torch.no_grad():
        for sequence in corpus.sequences if names else ():
            with node.working():
                model(input_ids=sequence[None].to(device), use_cache=False)
    return sums


def _grains(grains: Mapping[str, Grain]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(grain.to_array()) for name, grain in grains.items()}
