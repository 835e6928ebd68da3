"""What a model sees of a candidate: its own values, what its plan is like, and what it costs exactly."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hpo.search.encoding import Encoding
from hpo.search.exact_range import ExactRange
from hpo.search.pool import Pool
from hpo.space import SearchSpace

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Inputs:
    """Rows [encoding | features of the plan | exact losses], each column about in [0, 1].

    Columns that do not vary over the candidates at hand are left out.
    """

    encoding: Encoding
    exact: ExactRange
    kept: NDArray[np.intp]

    @classmethod
    def of(cls, space: SearchSpace, pool: Pool) -> Self:
        """Return the inputs for candidates like those of `pool`, known ones included."""
        encoding, exact = Encoding(space), ExactRange.of(pool.exact)
        every = cls(encoding, exact, np.arange(0))._all(pool)
        return cls(encoding, exact, np.flatnonzero(np.ptp(every, axis=0) > 1e-12))

    def rows(self, pool: Pool) -> Array:
        """Return the inputs of a pool, shape (N, D)."""
        return self._all(pool)[:, self.kept]

    def _all(self, pool: Pool) -> Array:
        encoded = self.encoding.encode(pool.candidates)
        return np.hstack([encoded, pool.features, self.exact.shares(pool.exact)])
