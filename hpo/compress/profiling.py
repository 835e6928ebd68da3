"""Profile a dense model: everything that is computed once, before the first trial."""

from collections.abc import Iterable
from functools import cached_property

from hpo.compress.architecture import Architecture
from hpo.compress.factors import FactorStore, cache_key
from hpo.compress.grams import gram_owners
from hpo.compress.materials import Materials
from hpo.compress.preparation import Preparation
from hpo.compress.profile import ModelProfile
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import inspect
from hpo.models.dense import DenseModel
from hpo.models.text import Corpus


class Profiler:
    """Prepares one model and calibration text.

    `context` is the length, in tokens, of the prefill that costs are stated for.
    """

    def __init__(self, dense: DenseModel, calibration: Corpus, context: int) -> None:
        self.dense = dense
        self.calibration = calibration
        self.context = context

    @cached_property
    def _owners(self) -> dict[str, str]:
        return gram_owners(self.dense.module, self.calibration)

    @cached_property
    def architecture(self) -> Architecture:
        """Of the model.

        Raises:
            Unsupported: the model has no layer that can be compressed.
            NonFinite: a weight is NaN or infinite.
        """
        return inspect(self.dense.module, self.context, self._owners)

    @cached_property
    def store(self) -> FactorStore:
        return FactorStore(cache_key(self.dense.digest, self.calibration.digest))

    @cached_property
    def statistics(self) -> Statistics:
        return Statistics(self.store.root, self.dense.module, self.calibration, self._owners)

    def prepare(self, preparations: Iterable[Preparation]) -> None:
        """Make sure that the preparations are cached; later calls only look."""
        for preparation in preparations:
            self.store.build(preparation, self.dense.module, self.architecture, self.statistics)

    def materials(self, preparations: Iterable[Preparation]) -> Materials:
        """Return what methods work with, these preparations made."""
        self.prepare(preparations)
        return Materials(self.store, self.dense.module, self.calibration)

    def profile(self, preparations: Iterable[Preparation]) -> ModelProfile:
        """Describe the model for planning, with the arrays of these preparations."""
        wanted = sorted(set(preparations), key=lambda p: p.name)
        self.prepare(wanted)
        arrays = {preparation.name: self.store.arrays(preparation.name) for preparation in wanted}
        return ModelProfile(self.architecture, self.store.key, arrays)


def build_profile(
    dense: DenseModel, calibration: Corpus, context: int, preparations: Iterable[Preparation]
) -> ModelProfile:
    """Describe `dense` and make sure that the preparations are cached; later calls only read.

    Raises:
        Unsupported: the model has no layer that can be compressed.
        NonFinite: a weight is NaN or infinite.
    """
    return Profiler(dense, calibration, context).profile(preparations)
