"""Tensor-train cores of the embedding and, where it has a matrix of its own, the output layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hpo.compress.architecture import Architecture
from hpo.compress.mpo_sites import balanced_sites
from hpo.compress.preparation import Prepared
from hpo.compress.statistics import Statistics
from hpo.compress.svd_math import finite
from hpo.compress.tt_embedding_math import embedding_cores, places_by_frequency, token_counts
from hpo.compress.tt_embedding_plan import largest_bond, row_sites
from hpo.errors import Unsupported

Of = Literal["embedding", "head"]


@dataclass(frozen=True)
class TtTables:
    """Cores nested in their bonds, kept up to the largest bond that saves weights.

    A cut takes an eigendecomposition as large as its smaller side: for 32000 x 4096 that is 10240 with 2
    sites (minutes on a processor), and 640 with 3.
    """

    sites: int
    is_weighted: bool = True
    of: Of = "embedding"
    """Which table; there are none of an output layer that is tied, or of another shape."""

    @property
    def name(self) -> str:
        return f"tt-{self.of}-{self.sites}{'-frequency' if self.is_weighted else ''}"

    def prepare(
        self, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> Iterator[Prepared]:
        shape = architecture.embedding
        if shape is None or (self.of == "head" and (shape.tied or not shape.head)):
            return
        check_plain(model.get_submodule(shape.name), shape.name)
        name = shape.name if self.of == "embedding" else shape.head
        table = finite(model.get_parameter(f"{name}.weight").detach(), f"{name}.weight")
        counts = places = None
        if self.is_weighted:
            counts = token_counts(statistics.corpus.sequences, shape.vocabulary)
            places = places_by_frequency(counts)
        rows, columns = row_sites(shape.vocabulary, self.sites), balanced_sites(shape.width, self.sites)
        largest = largest_bond(shape.vocabulary, shape.width, self.sites)
        cores, spectra = embedding_cores(table, rows, columns, largest, places, counts)
        tensors = {f"core{k}": core for k, core in enumerate(cores)}
        yield Prepared(
            name,
            tensors if places is None else {**tensors, "places": places},
            {f"{name}@{k}": values for k, values in enumerate(spectra)},
        )


def check_plain(module: nn.Module, name: str) -> None:
    """Refuse an embedding that does more than look rows up.

    Raises:
        Unsupported: naming its class.
    """
    if type(module).forward is not nn.Embedding.forward:
        raise Unsupported(
            f"{name} is a {type(module).__name__}, which does more than look rows up",
            "supported: torch.nn.Embedding; leave the stage embed out",
        )
