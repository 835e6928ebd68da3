"""The factor cache: everything prepared once per model and calibration text.

<cache>/factors/<key>/gram/         Gram matrices of the layers' inputs, and other statistics
<cache>/factors/<key>/<name>/       one preparation: a safetensors file a layer
<cache>/factors/<key>/<name>/arrays.safetensors      its spectra and the like, for planning
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.compress.architecture import Architecture
from hpo.compress.preparation import Preparation, Prepared
from hpo.compress.statistics import Statistics
from hpo.errors import HpoError
from hpo.measure.quiet import QuietNode
from hpo.models.cache import MANIFEST, build_once, cache_dir

_VERSION = "2"
"""Part of every key: raise it when the content of a cache entry changes its meaning."""

_ARRAYS = "arrays"


def cache_key(model_digest: str, calibration_digest: str) -> str:
    """Return the name under which everything derived from a model and a text is kept."""
    return hashlib.sha256(f"{_VERSION}|{model_digest}|{calibration_digest}".encode()).hexdigest()[:32]


@dataclass(frozen=True)
class FactorStore:
    """Cached tensors of one model and calibration text, memory-mapped from safetensors files."""

    key: str

    @property
    def root(self) -> Path:
        return cache_dir() / "factors" / self.key

    def directory(self, name: str) -> Path:
        return self.root / name

    def load(self, name: str, stem: str) -> dict[str, Tensor]:
        """Return the tensors of a layer, as views of the file.

        Raises:
            HpoError: the preparation has not been built, or is damaged; then whoever asks for it next has it
                built again.
        """
        path = self.directory(name) / f"{stem}.safetensors"
        if not path.is_file():
            raise HpoError(
                f"{name!r} was not prepared for {stem}: {path} is missing",
                "profile the model again for this space",
            )
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except SafetensorError as error:
            (self.directory(name) / MANIFEST).unlink(missing_ok=True)
            raise HpoError(
                f"{path} is damaged: {error}", "it is built again when it is asked for next: try again"
            ) from error
        return tensors

    def arrays(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Return the arrays kept beside a preparation: by layer, or by ``layer@cut``."""
        return {key: tensor.numpy() for key, tensor in self.load(name, _ARRAYS).items()}

    def build(
        self, preparation: Preparation, model: nn.Module, architecture: Architecture, statistics: Statistics
    ) -> None:
        """Compute a preparation unless it is there already, whole.

        Raises:
            NonFinite: a weight or statistic holds NaN or infinity.
            HpoError: the cache cannot be written.
        """

        def fill(directory: Path) -> None:
            dtype = next(model.parameters()).dtype
            arrays: dict[str, Tensor] = {}
            for piece in _with_leave(preparation.prepare(model, architecture, statistics)):
                kept = {
                    name: (t.to(dtype) if t.is_floating_point() else t).cpu().contiguous()
                    for name, t in piece.tensors.items()
                }
                if kept:
                    save_file(kept, directory / f"{piece.name}.safetensors")
                arrays |= {name: values.double().cpu() for name, values in piece.arrays.items()}
            save_file(arrays, directory / f"{_ARRAYS}.safetensors")

        build_once(self.directory(preparation.name), fill)


def _with_leave(pieces: Iterator[Prepared]) -> Iterator[Prepared]:
    """Yield the pieces, each computed with leave of the node, so that timings nearby are not disturbed."""
    node = QuietNode()
    while True:
        with node.working():
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece
