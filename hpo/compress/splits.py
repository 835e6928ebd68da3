"""What layers in few bits hold, where it is no slice of anything: worked out once a layer and plan.

It is kept in the factor cache, a directory a plan and in it one a layer::

    <cache>/factors/<key>/splits/q2g32r8i5/<layer>/tensors.safetensors

so the second trial that plans a layer alike, and the export of either, find it there.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from hpo.compress.architecture import Architecture, LayerShape
from hpo.compress.corrected_plan import Corrected, PackedLowRank
from hpo.compress.correction_math import Factors, quantised_factors, split
from hpo.compress.materials import Materials
from hpo.compress.residual import evened
from hpo.compress.rounding import RoundToNearest
from hpo.compress.statistics import Statistics
from hpo.compress.surgery import weight_of
from hpo.measure.quiet import QuietNode
from hpo.models.cache import build_once

_FILE = "tensors.safetensors"


@dataclass(frozen=True)
class Splits:
    """Of one model and calibration text."""

    architecture: Architecture
    materials: Materials

    @cached_property
    def _statistics(self) -> Statistics:
        owners = {layer.name: layer.gram for layer in self.architecture.layers}
        used = self.materials
        return Statistics(used.store.root, used.dense, used.calibration, owners)

    def tensors(self, shape: LayerShape, layer: Corrected | PackedLowRank) -> dict[str, Tensor]:
        """Return the parts of a layer: ``backbone.*`` if any, and ``left`` and ``right`` or their parts.

        Raises:
            NonFinite: the weight or the Gram matrix holds NaN or infinity.
            HpoError: the cache cannot be written.
        """

        def fill(directory: Path) -> None:
            with QuietNode().working():
                found = self._worked_out(shape, layer)
            save_file({name: t.cpu().contiguous() for name, t in found.items()}, directory / _FILE)

        directory = self.materials.store.directory("splits") / layer.costs.key / shape.name
        tensors: dict[str, Tensor] = load_file(build_once(directory, fill) / _FILE)
        return tensors

    def _worked_out(self, shape: LayerShape, layer: Corrected | PackedLowRank) -> dict[str, Tensor]:
        weight = weight_of(self.materials.dense.get_submodule(shape.name)).detach()
        gram = self._statistics.gram(shape)
        quantizer = RoundToNearest(layer.grid)
        if isinstance(layer, PackedLowRank):
            return _parts(quantised_factors(weight, gram, layer.rank, quantizer, layer.iterations))
        of_factors = RoundToNearest(layer.factor_grid) if layer.factor_grid else None
        found = split(weight, gram, quantizer, layer.rank, layer.iterations, of_factors)
        kept = {
            name: part.to(weight.dtype) if part.is_floating_point() else part
            for name, part in _parts(found.factors).items()
        }
        return {**found.backbone.state_dict(prefix="backbone."), **kept}


def _parts(factors: Factors) -> dict[str, Tensor]:
    if factors.packed is None:
        left, right = evened(factors.left, factors.right)
        return {"left": left, "right": right}
    left_RO, right_RI = factors.packed
    return {**left_RO.state_dict(prefix="left."), **right_RI.state_dict(prefix="right.")}
