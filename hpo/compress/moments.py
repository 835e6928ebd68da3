"""Mean and variance of what layers read over a calibration text. Letters: I input features."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hpo.compress.grams import watching
from hpo.compress.surgery import linear_layers
from hpo.errors import NonFinite
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus


def collect_moments(model: nn.Module, corpus: Corpus, owners: Mapping[str, str]) -> dict[str, Tensor]:
    """Run the calibration text; return mean and (population) variance over its tokens of each distinct layer
    input, (2, I) float64.

    Raises:
        NonFinite: an input is NaN or infinite; names the layer.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, x: Tensor) -> None:
        if owners[name] == name:
            rows = x.reshape(-1, x.shape[-1]).double()
            total = torch.stack([rows.sum(0), rows.square().sum(0)])
            sums[name] = sums[name] + total if name in sums else total

    node, device = QuietNode(), next(model.parameters()).device
    with watching(linear_layers(model), add), torch.no_grad():
        for sequence in corpus.sequences:
            with node.working():
                model(input_ids=sequence[None].to(device), use_cache=False)
    found = {}
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise NonFinite(f"an input of {name} is NaN or infinite", "set model.dtype to float32")
        mean, square = total / corpus.tokens
        found[name] = torch.stack([mean, (square - mean.square()).clamp(min=0)])
    return found
