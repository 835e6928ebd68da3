"""What plans of matrix product operators slice: cores of every layer, nested in their bonds.

    MpoBasis         W as the model stores it                     (TT-SVD, Oseledets 2011)
    ReorderedBasis   neurons and heads in an order that loses less, for the units where one is found
    WEIGHTED         singular values of W G^(1/2), which foretell what is left after sweeps

A reordering is chosen at bonds that keep half of the weights; a plan compares once more at its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.mpo_bonds import Split, bonds_for_budget, largest_bond
from hpo.compress.mpo_math import full_cores, share_lost
from hpo.compress.mpo_plan import basis_name
from hpo.compress.mpo_sites import check_shapes, sites_of
from hpo.compress.neuron_math import by_size, heads_by_size, sizes, widened
from hpo.compress.neurons import Unit, reordered, units
from hpo.compress.preparation import Prepared
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of
from hpo.compress.svd_math import finite, ridged, root

ORDER = "@order"
"""After a layer's name: the array that holds the order of its rows or columns."""

_REFERENCE = 0.5
"""Share of the weights at which orders are compared."""


@dataclass(frozen=True)
class MpoBasis:
    """Cores of W on given sites, kept up to the largest bond that saves weights."""

    sites: int
    factorisation: str = "ascending"
    """A rule, or named factors; see `hpo.compress.mpo_sites`."""

    @property
    def name(self) -> str:
        return basis_name(self.sites, self.factorisation)

    def split(self, layer: LayerShape) -> Split:
        """Return the sites of a layer.

        Raises:
            Unsupported: the named factors do not multiply to it.
        """
        return sites_of(layer.out_features, layer.in_features, self.sites, self.factorisation)

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        layers = architecture.layers
        check_shapes(self.factorisation, [(layer.out_features, layer.in_features) for layer in layers])
        for layer in layers:
            yield self.cut(layer, weight_of(model.get_submodule(layer.name)).detach())

    def cut(self, layer: LayerShape, weight_OI: Tensor) -> Prepared:
        """Return the cores of W, which need not be the layer's own, and the spectrum at each cut."""
        outs, ins = self.split(layer)
        largest = largest_bond(layer.out_features, layer.in_features, self.sites, self.factorisation)
        cores, spectra = full_cores(weight_OI, outs, ins, largest, f"{layer.name}.weight")
        return Prepared(
            layer.name,
            {f"core{k}": core for k, core in enumerate(cores)},
            {f"{layer.name}@{k}": values for k, values in enumerate(spectra)},
        )


@dataclass(frozen=True)
class ReorderedBasis:
    """Cores of the layers of those units that lose less in another order, and the orders."""

    stored: MpoBasis

    @property
    def name(self) -> str:
        return basis_name(self.stored.sites, self.stored.factorisation, reordered=True)

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        layers = {layer.name: layer for layer in architecture.layers}
        for unit in units(model):
            weights = {name: weight_of(model.get_submodule(name)).detach() for name in unit.members}
            known = {name: layers[name] for name in unit.members if name in layers}
            orders = self._best(unit, weights, known)
            for name, order in (orders or {}).items():
                kept = {f"{name}{ORDER}": order.double()}
                if name in known:
                    piece = self.stored.cut(known[name], reordered(weights[name], unit, name, order))
                    yield Prepared(name, piece.tensors, {**piece.arrays, **kept})
                else:  # too small to be factorised, and yet it has to follow
                    yield Prepared(name, arrays=kept)

    def _best(
        self, unit: Unit, weights: Mapping[str, Tensor], known: Mapping[str, LayerShape]
    ) -> Mapping[str, Tensor] | None:
        """Return the orders, by layer, at which the unit loses least; None if that is the stored one."""
        least, found = self._lost(weights, known), None
        for orders in self._candidates(unit, weights, known):
            moved = {name: reordered(weights[name], unit, name, orders[name]) for name in known}
            if (lost := self._lost(moved, known)) < least:
                least, found = lost, orders
        return found

    def _lost(self, weights: Mapping[str, Tensor], known: Mapping[str, LayerShape]) -> float:
        total = 0.0
        for name, layer in known.items():
            split = self.stored.split(layer)
            largest = largest_bond(
                layer.out_features, layer.in_features, self.stored.sites, self.stored.factorisation
            )
            bonds = bonds_for_budget(split, int(_REFERENCE * layer.parameters), largest)
            total += share_lost(weights[name], *split, bonds)
        return total

    def _candidates(
        self, unit: Unit, weights: Mapping[str, Tensor], known: Mapping[str, LayerShape]
    ) -> list[Mapping[str, Tensor]]:
        column, rows = weights[unit.column].T, [weights[name] for name in unit.rows]
        if unit.heads:
            return [_head_orders(unit, rows, column)]
        splits = {name: self.stored.split(layer)[name == unit.column] for name, layer in known.items()}
        neurons = sizes([*rows, column])
        orders = [by_size(neurons, sites, k) for sites in set(splits.values()) for k in range(len(sites))]
        distinct = {tuple(order.tolist()): order for order in orders}
        return [dict.fromkeys(unit.members, distinct[key]) for key in sorted(distinct)]


def _head_orders(unit: Unit, rows: list[Tensor], column: Tensor) -> Mapping[str, Tensor]:
    queries, keys, values = rows
    own = sizes([queries, column]).reshape(unit.heads, -1).sum(dim=1)
    shared = sizes([keys, values]).reshape(unit.groups, -1).sum(dim=1)
    each = unit.heads // unit.groups
    groups, heads = heads_by_size(own + shared.repeat_interleave(each) / each, unit.groups)
    outer = widened(heads, len(queries) // unit.heads)
    inner = widened(groups, len(keys) // unit.groups)
    return {unit.rows[0]: outer, unit.rows[1]: inner, unit.rows[2]: inner, unit.column: outer}


@dataclass(frozen=True)
class WeightedSpectra:
    """The best that two thin factors could do for each layer's outputs, by rank; no tensors."""

    @property
    def name(self) -> str:
        return "weighted"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        for layer in architecture.layers:
            weight = weight_of(model.get_submodule(layer.name)).detach().double()
            weight = finite(weight, f"{layer.name}.weight")
            gram = ridged(finite(statistics.gram(layer).double(), f"the Gram matrix of {layer.name}"))
            if layer.out_features <= layer.in_features:
                square = weight @ gram @ weight.T
            else:
                whitened = weight @ root(gram)
                square = whitened.T @ whitened
            singular = torch.linalg.eigvalsh(square).clamp(min=0).sqrt().flip(0)
            yield Prepared(layer.name, arrays={layer.name: singular})


WEIGHTED = WeightedSpectra()
