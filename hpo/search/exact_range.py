"""Exact losses in the unit of other inputs of a model: shares of their range, by logarithm where positive."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ExactRange:
    """The range of E exact losses over the candidates at hand."""

    log: NDArray[np.bool_]
    """(E,) which are seen on a log scale: the positive ones."""
    low: Array
    width: Array

    @classmethod
    def of(cls, exact_NE: Array) -> Self:
        log = np.asarray((exact_NE > 0).all(axis=0))
        seen = np.log(exact_NE, where=log, out=exact_NE.copy())
        low, high = seen.min(axis=0), seen.max(axis=0)
        return cls(log, low, np.where(high > low, high - low, 1.0))

    def shares(self, exact_NE: Array) -> Array:
        """Return losses as shares of the range, (N, E): in [0, 1] for the candidates it was taken from."""
        seen = np.log(exact_NE, where=self.log & (exact_NE > 0), out=exact_NE.copy())
        found: Array = (seen - self.low) / self.width
        return found
