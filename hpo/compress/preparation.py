"""What does not depend on a candidate: computed once per model and calibration text, cached, shared by all.

A factorisation nested in its rank is the usual case: taking the first r columns of the cached factors gives
the best factorisation of rank r, so a trial slices. Sensitivities and orderings are others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from hpo.compress.architecture import Architecture
from hpo.compress.statistics import Statistics


@dataclass(frozen=True)
class Prepared:
    """What is kept of one layer, or of several that belong together."""

    name: str
    """Stem of its file, usually the layer's name."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Kept on disk; floating ones in the precision of the model."""
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    """One-dimensional float64, known to every plan: spectra by layer, or by ``layer@cut``."""


class Preparation(Protocol):
    """A frozen value: equal ones give the same results for the same model and text."""

    @property
    def name(self) -> str:
        """Directory of the cache; tells apart every two preparations."""
        ...

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        """Compute it, piece by piece: the machine may be wanted for timing between two of them.

        Raises:
            NonFinite: a weight or statistic holds NaN or infinity.
        """
        ...
