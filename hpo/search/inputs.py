"""What a model sees of a candidate: its own values, what its plan is like, and what it costs exactly."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hpo.search.encoding import Encoding
from hpo.search.pool import Pool
from hpo.space import SearchSpace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Inputs:
    """Rows [encoding | features of the plan | exact losses], each column about in [0, 1].

    Columns that do not vary over the candidates at hand are left out.
    """

    encoding: Encoding
    log: NDArray[np.bool_]
    """(E,) which exact losses are seen on a log scale: the positive ones."""
    low: Array
    width: Array
    kept: NDArray[np.intp]

    @classmethod
    def of(cls, space: SearchSpace, pool: Pool) -> Self:
        """Return the inputs for candidates like those of `pool`, known ones included."""
        log = np.asarray((pool.exact > 0).all(axis=0))
        seen = np.log(pool.exact, where=log, out=pool.exact.copy())
        low, high = seen.min(axis=0), seen.max(axis=0)
        width = np.where(high > low, high - low, 1.0)
        every = cls(Encoding(space), log, low, width, np.arange(0))._all(pool)
        return cls(Encoding(space), log, low, width, np.flatnonzero(np.ptp(every, axis=0) > 1e-12))

    def rows(self, pool: Pool) -> Array:
        """Return the inputs of a pool, shape (N, D)."""
        return self._all(pool)[:, self.kept]

    def _all(self, pool: Pool) -> Array:
        seen = np.log(pool.exact, where=self.log & (pool.exact > 0), out=pool.exact.copy())
        exact = (seen - self.low) / self.width
        return np.hstack([self.encoding.encode(pool.candidates), pool.features, exact])
