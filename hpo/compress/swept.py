"""Swept cores, kept by content: they follow from the plan of their layer alone, and trials share them.

<cache>/factors/<key>/swept/<layer>-<digest>/     the cores of one layer, in the precision of the model

Unlike the cores of a basis they are not nested in their bonds, so every plan of a layer has its own.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from hpo.compress.architecture import LayerShape
from hpo.compress.factors import FactorStore
from hpo.compress.mpo_plan import Mpo
from hpo.compress.sweep_math import swept
from hpo.measure.quiet import QuietNode
from hpo.models.cache import build_once

_VERSION = 1
"""Raise it when the same plan gives other cores."""
_FILE = "cores.safetensors"


def swept_cores(
    store: FactorStore,
    shape: LayerShape,
    layer: Mpo,
    weight_OI: Tensor,
    cores: Sequence[Tensor],
    order_I: Tensor | None,
) -> list[Tensor]:
    """Return the cores of a layer after the planned sweeps, from the cache if they were made before.

    `order_I` is that of the columns of `weight_OI` among the layer's inputs; None if they are as stored.

    Raises:
        NonFinite: the weight or the Gram matrix holds NaN or infinity.
    """

    def fill(directory: Path) -> None:
        gram = store.load("gram", shape.gram)["gram"].to(weight_OI.device)
        if order_I is not None:
            gram = gram[order_I][:, order_I]
        start = [core.to(weight_OI.device) for core in cores]
        with QuietNode().working():
            made = swept(weight_OI, gram, start, layer.sweeps, f"{shape.name}.weight").cores
        kept = {f"core{k}": core.to(weight_OI.dtype).cpu().contiguous() for k, core in enumerate(made)}
        save_file(kept, directory / _FILE)

    directory = build_once(store.directory("swept") / f"{shape.name}-{_digest(layer)}", fill)
    found = load_file(directory / _FILE)
    return [found[f"core{k}"] for k in range(len(found))]


def _digest(layer: Mpo) -> str:
    content = [_VERSION, layer.prepared, layer.out_sites, layer.in_sites, layer.bonds, layer.sweeps]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
