"""Sparsifiers: what chooses the weights of a matrix that become zero. Frozen values, which plans hold.

A new one is a class here or in a file of its own, and a method of the stage ``sparsify`` that plans with it.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from hpo.compress.sparse_math import Thinned, activations, largest, magnitudes, thinned, updated
from hpo.compress.sparse_pattern import Pattern


class Sparsifier(Protocol):
    """Sets weights of a matrix to zero."""

    def __hash__(self) -> int: ...

    @property
    def key(self) -> str:
        """Tells it from others, its knobs included; fit for a file name."""
        ...

    @property
    def needs_gram(self) -> bool:
        """Whether it looks at a layer's inputs."""
        ...

    @property
    def updates(self) -> bool:
        """Whether the weights that stay change as well."""
        ...

    def thin(self, weight_OI: Tensor, gram_II: Tensor | None, pattern: Pattern) -> Thinned:
        """Return the matrix with zeros, as many as the pattern says, on the same device.

        `gram_II` is the sum of x x' over the layer's inputs; one that needs none ignores it. None weighs all
        inputs alike, as do those of a layer that the text never reaches.

        Raises:
            NonFinite: the weight or the Gram matrix holds NaN or infinity.
            Unsupported: the matrix cannot have the pattern.
        """
        ...


@dataclass(frozen=True)
class ByMagnitude:
    """The smallest weights go."""

    key: ClassVar[str] = "magnitude"
    needs_gram: ClassVar[bool] = False
    updates: ClassVar[bool] = False

    def thin(self, weight_OI: Tensor, gram_II: Tensor | None, pattern: Pattern) -> Thinned:
        return thinned(weight_OI, largest(magnitudes(weight_OI), pattern))


@dataclass(frozen=True)
class ByActivation:
    """The weights go that do least to the outputs, each by itself."""

    key: ClassVar[str] = "wanda"
    needs_gram: ClassVar[bool] = True
    updates: ClassVar[bool] = False

    def thin(self, weight_OI: Tensor, gram_II: Tensor | None, pattern: Pattern) -> Thinned:
        gram_II = _alike(weight_OI) if gram_II is None else gram_II
        return thinned(weight_OI, largest(activations(weight_OI, gram_II), pattern))


@dataclass(frozen=True)
class BySurgery:
    """The weights go that the others can make up for best, and the others do."""

    damping: float
    slice_columns: int
    needs_gram: ClassVar[bool] = True
    updates: ClassVar[bool] = True

    @property
    def key(self) -> str:
        return f"sparsegpt{self.slice_columns}d{self.damping:g}"

    def thin(self, weight_OI: Tensor, gram_II: Tensor | None, pattern: Pattern) -> Thinned:
        gram_II = _alike(weight_OI) if gram_II is None else gram_II
        return updated(weight_OI, gram_II, pattern, self.damping, self.slice_columns)


def _alike(weight_OI: Tensor) -> Tensor:
    """Return the Gram matrix of inputs that are all alike, (I, I)."""
    return torch.eye(weight_OI.shape[1], dtype=torch.float64, device=weight_OI.device)
