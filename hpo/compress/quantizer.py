"""The protocol of quantizers: everything that puts a weight matrix into few bits.

A quantizer is a frozen value. What it returns is a module of `hpo.compress.layers.packed`, which an exported
model carries with it; a new number format is a class there and one line in its table of forms.
"""

from typing import Protocol

from torch import Tensor

from hpo.compress.layers.packed import Packed


class Quantizer(Protocol):
    """Puts a matrix into few bits."""

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None) -> Packed:
        """Return the matrix in few bits, on the same device.

        `gram_II`, the sum of x x' over the layer's inputs, says which errors cost most; a quantizer that
        needs no data ignores it. None weighs them all alike.

        Raises:
            NonFinite: the weight holds NaN or infinity.
            Unsupported: the weights are beyond what the format can hold.
        """
        ...
