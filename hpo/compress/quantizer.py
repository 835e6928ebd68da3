"""The protocols of formats and quantizers: everything that puts a weight matrix into few bits.

A format says how a matrix is held and what that costs; a quantizer finds the values. Both are frozen values,
and a plan holds them. What a quantizer returns is a module of `hpo.compress.layers`, which an exported model
carries with it; a new number format is a class there, a line in `hpo.compress.layers.forms`, and a format.
"""

from typing import Any, Protocol

from torch import Tensor

from hpo.compress.layers.packed import Packed


class Format(Protocol):
    """How a matrix is held: `hpo.compress.grid.Grid` is one."""

    @property
    def key(self) -> str:
        """Short and unique; fit for a file name."""
        ...

    def __str__(self) -> str:
        """In words, as tables show it."""
        ...

    def weights(self, rows: int, columns: int) -> int:
        """Return how many weights the bytes stand for."""
        ...

    def packed_bytes(self, rows: int, columns: int) -> int:
        """Return the bytes of a matrix with everything that belongs to it: scales, indices, tables."""
        ...

    def fault(self, rows: int, columns: int) -> str:
        """Return why a matrix of that shape cannot be held so, in words; empty if it can."""
        ...

    def size(self, rows: int, columns: int) -> dict[str, Any]:
        """Return, as JSON, what `hpo.compress.layers.forms.empty_packed` needs to make an empty one."""
        ...


class Quantizer(Protocol):
    """Puts a matrix into few bits."""

    def __hash__(self) -> int: ...

    @property
    def key(self) -> str:
        """Tells it from others of the same format; fit for a file name. Empty for rounding to nearest."""
        ...

    @property
    def format(self) -> Format:
        """Of what it returns."""
        ...

    @property
    def needs_gram(self) -> bool:
        """Whether it looks at a layer's inputs."""
        ...

    @property
    def noise(self) -> float:
        """Relative error of Gaussian weights, about: a feature for the search, no figure to report."""
        ...

    def quantise(self, weight_OI: Tensor, gram_II: Tensor | None = None) -> Packed:
        """Return the matrix in few bits, on the same device.

        `gram_II`, the sum of x x' over the layer's inputs, says which errors cost most; a quantizer that
        needs no data ignores it. None weighs them all alike.

        Raises:
            NonFinite: the weight holds NaN or infinity.
            Unsupported: the weights are beyond what the format can hold.
        """
        ...
