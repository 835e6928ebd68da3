"""Factors over bases shared by neighbouring blocks, nested in their rank, for every layer of a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hpo.compress.architecture import Architecture, LayerShape, break_even_rank
from hpo.compress.factors import FactorStore
from hpo.compress.preparation import Prepared
from hpo.compress.sharing_math import Fitted, fitted, shared_factors
from hpo.compress.sharing_plan import Share, groups
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of


@dataclass(frozen=True)
class SharedBases:
    """One basis for the same layer of `group` neighbouring blocks, and coefficients for each of them.

    One file a group, named after its first layer; layers that share with none are groups of one, and
    theirs are the factors of whitened SVD. Everything is kept up to the group's break-even rank, so it takes
    no more room than the dense layers, or with fitted coefficients up to a third more (a triangle of
    numbers a layer).
    """

    group: int
    share: Share = "all"
    is_fitted: bool = True
    """Whether coefficients answer to the layer's own inputs, or all to the sum."""

    @property
    def name(self) -> str:
        share = "" if self.share == "all" else f"-{self.share}"
        return f"shared-{self.group}{share}{'' if self.is_fitted else '-common'}"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        for group in groups(architecture, self.group, self.share):
            yield self._prepared(model, [architecture.layers[index] for index in group], statistics)

    def _prepared(self, model: nn.Module, layers: Sequence[LayerShape], statistics: Statistics) -> Prepared:
        weights = [weight_of(model.get_submodule(layer.name)).detach() for layer in layers]
        grams = [statistics.gram(layer) for layer in layers]
        keep = break_even_rank(sum(len(weight) for weight in weights), layers[0].in_features)
        common, basis, singular = shared_factors(weights, grams, keep)
        tensors = {"basis": basis}
        for position, left in enumerate(common):
            if self.is_fitted and len(layers) > 1:
                own = fitted(weights[position], grams[position], basis, left)
                tensors |= {f"left{position}": own.left, f"inner{position}": own.packed}
            else:
                tensors[f"left{position}"] = left
        return Prepared(layers[0].name, tensors, {layer.name: singular.clone() for layer in layers})

    def sliced(self, store: FactorStore, first: str, members: int, rank: int) -> tuple[list[Tensor], Tensor]:
        """Return the coefficients (O, rank) of a group's layers and its basis (rank, I).

        Raises:
            HpoError: they have not been prepared.
        """
        tensors = store.load(self.name, first)
        coefficients = []
        for position in range(members):
            left, inner = tensors[f"left{position}"], tensors.get(f"inner{position}")
            own = left[:, :rank] if inner is None else Fitted(left, inner).coefficients(rank).to(left.dtype)
            coefficients.append(own.contiguous())
        return coefficients, tensors["basis"][:rank].clone()
