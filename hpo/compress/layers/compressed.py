"""What every compressed module can do. Needs torch alone: exported models carry the files of this package."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from hpo.compress.layers.widened import widened


class Compressed(nn.Module):
    """A module in place of one of the dense model's."""

    kind: ClassVar[str]
    """Its name in ``config.json`` of an exported model."""

    def size(self) -> dict[str, Any]:
        """Return, as JSON, what it takes to make an empty one."""
        raise NotImplementedError

    @classmethod
    def empty(cls, size: Mapping[str, Any], old: nn.Module) -> "Compressed":
        """Return one of the given size in place of `old`, its values not set."""
        raise NotImplementedError

    def connect(self, model: nn.Module) -> None:
        """Called once every module of `model` is in place, for those that hold parts in common."""

    def as_dense(self, old: nn.Module) -> nn.Module:
        """Return a module of the class of `old`, the one that was replaced, which computes the same."""
        raise NotImplementedError

    def factors(self) -> list[nn.Parameter]:
        """Return what healing trains."""
        return []


class CompressedLinear(Compressed):
    """In place of a linear layer ``y = W x + bias``, W of shape (out_features, in_features)."""

    bias: nn.Parameter | None
    parts: int = 1
    """As how many equal ones, one after the other, the next module reads the outputs; tells where the rows
    stood that an earlier stage has removed."""

    @property
    def in_features(self) -> int:
        raise NotImplementedError

    @property
    def out_features(self) -> int:
        raise NotImplementedError

    def features(self) -> dict[str, Any]:
        """Return the part of `size` that every linear layer has."""
        return {
            "out_features": self.out_features,
            "in_features": self.in_features,
            "bias": self.bias is not None,
        }

    def dense_weight(self) -> Tensor:
        """Return W, shape (O, I)."""
        raise NotImplementedError

    def dense_bias(self) -> Tensor | None:
        """Return what is added to the product, shape (O,); None where nothing is."""
        return self.bias

    def as_dense(self, old: nn.Module) -> nn.Module:
        """The product is taken in float32 and stored in the precision of the layer it replaces. Zeros take
        the place of rows and columns that an earlier stage has removed."""
        weight_OI = copy.deepcopy(self).float().dense_weight().to(old.get_parameter("weight").dtype)
        return widened(old, weight_OI, self.dense_bias(), self.parts)
