"""What the calibration text tells of a dense model; each computed on first use and kept on disk."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hpo.compress.architecture import LayerShape
from hpo.compress.fisher import collect_row_fisher
from hpo.compress.grams import cached_grams, collect_magnitudes, collect_output_grams, is_wide
from hpo.compress.influence import collect_block_influence
from hpo.compress.moments import collect_moments
from hpo.compress.surgery import linear_layers, weight_of
from hpo.compress.taylor import TaylorOrder, collect_taylor
from hpo.models.cache import build_once, faults
from hpo.models.text import Corpus


class Statistics:
    """Of one model and one text."""

    def __init__(self, directory: Path, model: nn.Module, corpus: Corpus, owners: Mapping[str, str]) -> None:
        self.directory = directory
        """Where they are kept."""
        self.model = model
        self.corpus = corpus
        self._owners = owners

    def gram(self, layer: LayerShape) -> Tensor:
        """Return the sum of x x' over the layer's inputs, (I, I)."""
        return self._grams[layer.gram]

    def narrow_gram(self, layer: LayerShape) -> Tensor:
        """Return the same for a layer that has at least as many outputs as inputs, without collecting the
        larger matrices of the others."""
        return self._narrow_grams[layer.gram]

    def outputs(self, layer: LayerShape) -> tuple[Tensor, float]:
        """Return the sum of y y' over the outputs, bias aside, (O, O), of a layer with fewer of them than
        inputs; and the mean diagonal of the Gram matrix of its inputs."""
        kept = self._outputs
        return kept[layer.name], float(kept[f"{layer.name}.energy"])

    def magnitude(self, layer: LayerShape) -> Tensor:
        """Return the mean of |x| over the layer's inputs, (I,) float64."""
        return self._magnitudes[layer.gram]

    def moments(self, layer: LayerShape) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the layer's inputs over the tokens, each (I,) float64.

        Raises:
            NonFinite: an input is NaN or infinite.
        """
        mean_I, variance_I = self._moments[layer.gram]
        return mean_I, variance_I

    def taylor(self, layer: LayerShape, order: TaylorOrder) -> tuple[Tensor, Tensor]:
        """Return by how much the loss is expected to change when weights become zero, each alone, summed over
        rows, (O,), and over columns, (I,), float64.

        Raises:
            NonFinite: a gradient is NaN or infinite.
        """
        kept, name = self._taylor, f"{layer.name}.{order}"
        return kept[f"{name}.rows"], kept[f"{name}.columns"]

    def row_fisher(self, layer: LayerShape) -> Tensor:
        """Return the Fisher information of the layer's weights summed over each row, (O,) float64.

        Raises:
            NonFinite: a gradient is NaN or infinite.
        """
        return self._row_fisher[layer.name]

    @cached_property
    def block_influence(self) -> Tensor:
        """1 - the mean cosine between what enters and what leaves a block, (blocks,) float64.

        Raises:
            NonFinite: a hidden state is NaN or infinite.
        """
        kept = self._kept("influence", lambda: {"all": collect_block_influence(self.model, self.corpus)})
        return kept["all"]

    @cached_property
    def _grams(self) -> dict[str, Tensor]:
        return cached_grams(self.directory / "gram", self.model, self.corpus, self._owners)

    @cached_property
    def _narrow_grams(self) -> dict[str, Tensor]:
        if not faults(self.directory / "gram"):
            return self._grams
        shapes = {name: weight_of(module) for name, module in linear_layers(self.model)}
        narrow = {self._owners[name] for name, weight in shapes.items() if not is_wide(weight)}
        owners = {name: owner for name, owner in self._owners.items() if owner in narrow}
        return cached_grams(self.directory / "narrow_gram", self.model, self.corpus, owners)

    @cached_property
    def _outputs(self) -> dict[str, Tensor]:
        def collected() -> dict[str, Tensor]:
            found = collect_output_grams(self.model, self.corpus)
            grams = {name: gram.float() for name, (gram, _) in found.items()}
            return grams | {f"{name}.energy": energy for name, (_, energy) in found.items()}

        return self._kept("output_gram", collected)

    @cached_property
    def _magnitudes(self) -> dict[str, Tensor]:
        return self._kept("magnitude", lambda: collect_magnitudes(self.model, self.corpus, self._owners))

    @cached_property
    def _moments(self) -> dict[str, Tensor]:
        return self._kept("moments", lambda: collect_moments(self.model, self.corpus, self._owners))

    @cached_property
    def _taylor(self) -> dict[str, Tensor]:
        return self._kept("taylor", lambda: collect_taylor(self.model, self.corpus))

    @cached_property
    def _row_fisher(self) -> dict[str, Tensor]:
        return self._kept("row_fisher", lambda: collect_row_fisher(self.model, self.corpus))

    def _kept(self, name: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return vectors from the cache, computed on first use, on the device of the model."""
        file = "vectors.safetensors"

        def fill(directory: Path) -> None:
            save_file({key: value.cpu() for key, value in compute().items()}, directory / file)

        device = next(self.model.parameters()).device
        loaded = load_file(build_once(self.directory / name, fill) / file)
        return {key: value.to(device) for key, value in loaded.items()}
