"""What pruning needs of a model once: which heads and units are worth most, by one of several metrics.

Letters: O output features, I input features, H heads, D dimensions of a head, N items of a section.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.modegpt_parts import Attention, Mlp, anatomy
from hpo.compress.preparation import Prepared
from hpo.compress.prune_math import by_item, fluctuation_scores, standardised, wanda_scores
from hpo.compress.prune_plan import Grain
from hpo.compress.prune_sections import falling
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import bias_of, weight_of
from hpo.compress.taylor import TaylorOrder

Metric = Literal["wanda", "fluctuation", "fluctuation_squared", "taylor_first", "taylor_second"]

_TAYLOR: Mapping[Metric, TaylorOrder] = {"taylor_first": "first", "taylor_second": "second"}


@dataclass(frozen=True)
class Worth:
    """What the items of a section are worth, each (N,) float64."""

    importances: Tensor
    """They decide which items of the section go, the smallest first."""
    levels: Tensor
    """The same in the terms in which items of different sections are compared."""


@dataclass(frozen=True)
class PruneScores:
    """Importances of all heads and units by one metric.

    A section has ``order`` (N,), the most important item first. The arrays are what plans go by, see
    `hpo.compress.prune_layout`: importances and levels by section, and the grain of every layer.
    """

    metric: Metric

    @property
    def name(self) -> str:
        return f"prune-{self.metric}"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        found = anatomy(model, architecture)
        shapes = {layer.name: layer for layer in architecture.layers}
        yield Prepared("unknown", arrays={f"{n}@{x}": torch.zeros(1) for n, x in found.unknown.items()})
        for part in found.parts:
            grains = _mlp_grains(part, shapes, model) if isinstance(part, Mlp) else _grains(part, model)
            worth = self._worth(part, model, shapes, statistics, grains)
            key = f"{part.path}@{'units' if isinstance(part, Mlp) else 'heads'}"
            arrays = {key: worth.importances, f"{key}.level": worth.levels}
            order = torch.from_numpy(falling(worth.importances.cpu().numpy()))
            kept = {name: torch.from_numpy(grain.to_array()) for name, grain in grains.items()}
            yield Prepared(part.path, {"order": order}, arrays | kept)

    def _worth(
        self,
        part: Mlp | Attention,
        model: nn.Module,
        shapes: Mapping[str, LayerShape],
        statistics: Statistics,
        grains: Mapping[str, Grain],
    ) -> Worth:
        if self.metric in _TAYLOR:
            importances = _saliences(part, shapes, statistics, _TAYLOR[self.metric])
            index = 1 if isinstance(part, Mlp) else 0
            weights = [
                grain.weights(index, shapes[name].out_features, shapes[name].in_features)
                for name, grain in grains.items()
            ]
            return Worth(importances, importances / sum(weights))
        scores_I = self._channels(part, model, shapes[part.output], statistics)
        items = part.width if isinstance(part, Mlp) else part.heads.keys
        return Worth(by_item(scores_I, items).sum(1), by_item(standardised(scores_I), items).mean(1))

    def _channels(
        self, part: Mlp | Attention, model: nn.Module, shape: LayerShape, statistics: Statistics
    ) -> Tensor:
        """Return what each channel that the output layer reads is worth, (I,)."""
        weight_OI = weight_of(model.get_submodule(part.output)).detach()
        mean_I, variance_I = statistics.moments(shape)
        if self.metric == "wanda":
            energy_I = (variance_I + mean_I.square()) * statistics.corpus.tokens
            return wanda_scores(weight_OI, energy_I.sqrt())
        scores_I = fluctuation_scores(weight_OI, variance_I)
        is_squared = self.metric == "fluctuation_squared" and isinstance(part, Attention)
        return scores_I.square() if is_squared else scores_I


def _saliences(
    part: Mlp | Attention, shapes: Mapping[str, LayerShape], statistics: Statistics, order: TaylorOrder
) -> Tensor:
    """Return the sum of the salience of every weight that goes with an item, (N,)."""
    _, columns_I = statistics.taylor(shapes[part.output], order)
    rows = [statistics.taylor(shapes[name], order)[0] for name in part.inputs]
    if isinstance(part, Mlp):
        return torch.stack([columns_I, *(rows_O.view(-1, part.width).sum(0) for rows_O in rows)]).sum(0)
    heads, found = part.heads, by_item(columns_I, part.heads.keys).sum(1)
    for number in range(3):
        count = heads.queries if number == 0 else heads.keys
        index, rows_HD = part.wiring.rows(number, count, heads.size)
        found = found + by_item(rows[index][rows_HD.to(columns_I.device)].sum(1), heads.keys).sum(1)
    return found


def _mlp_grains(mlp: Mlp, shapes: Mapping[str, LayerShape], model: nn.Module) -> dict[str, Grain]:
    """Return what a unit is to each layer."""
    found = {mlp.output: Grain(unit_columns=1, has_bias=_has_bias(model, mlp.output))}
    for name in mlp.inputs:
        each = shapes[name].out_features // mlp.width
        found[name] = Grain(unit_rows=each, has_bias=_has_bias(model, name))
    return found


def _grains(attention: Attention, model: nn.Module) -> dict[str, Grain]:
    """Return what a head group is to each layer."""
    heads, wiring = attention.heads, attention.wiring
    each = heads.queries // heads.keys
    found = {
        attention.output: Grain(
            head_columns=each * heads.size,
            head_scores=2 * each * heads.size,  # queries with keys, and with values
            queries=each,
            has_bias=_has_bias(model, attention.output),
        )
    }
    rows = (each * heads.size, heads.size, heads.size)
    for name, count in zip(attention.inputs, (sum(rows),) if wiring.is_fused else rows, strict=True):
        found[name] = Grain(head_rows=count, has_bias=_has_bias(model, name))
    return found


def _has_bias(model: nn.Module, layer: str) -> int:
    return int(bias_of(model.get_submodule(layer)) is not None)
