"""Which layers of a model adapters are put on, and the stand-ins that hold them. Letters as in `shown`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from hpo.compress.layers import Compressed, LowRankLinear, MpoLinear
from hpo.compress.method import Patient
from hpo.compress.shown import Shown, linear, shown, stand_in
from hpo.compress.surgery import replace

LOSSLESS = frozenset({"dense", "narrow"})
"""Kinds of layers that are plain matrices: merging an adapter loses nothing and adds nothing."""
GONE = frozenset({"removed"})
"""Kinds of layers that there are no more."""
MERGED = LOSSLESS | {"low_rank", "mpo"}
"""Kinds of layers that adapters can be merged into."""


@dataclass(frozen=True)
class Place:
    """A layer of the model by its path."""

    name: str
    module: nn.Module

    @property
    def is_plain(self) -> bool:
        """Whether it is a matrix, that of the dense model or a part of it."""
        return isinstance(self.module, nn.Linear) or not isinstance(self.module, Compressed)

    @property
    def takes_merged(self) -> bool:
        """Whether adapters can be merged into it: it is plain, or holds factors that can be fitted anew."""
        return self.is_plain or isinstance(self.module, LowRankLinear | MpoLinear)


def places(patient: Patient, group: str) -> Iterator[Place]:
    """Yield the layers of the blocks that are left, ``all`` of them or those of a group."""
    for shape, layer in patient.plan.named():
        if layer.kind not in GONE and group in ("all", shape.group):
            yield Place(shape.name, patient.model.get_submodule(shape.name))


class StandIns:
    """Layers of a model with other modules in their place, for a while.

    The linear parts they are shown as lie in `bank`, by number and side (``3_left``), where a library of
    adapters may put its own modules in their place.
    """

    def __init__(self, model: nn.Module, chosen: Sequence[Place]) -> None:
        self._model = model
        self._places = list(chosen)
        self._shown: list[Shown] = [shown(place.module) for place in self._places]
        self._sides: list[tuple[str, ...]] = []
        self.bank = nn.ModuleDict()
        for number, layer in enumerate(self._shown):
            weights = layer.weights()
            self._sides.append(tuple(weights))
            for side, weight in weights.items():
                self.bank[f"{number}_{side}"] = linear(weight)

    def install(self) -> None:
        """Put the stand-ins into the model, with what is in the bank by now."""
        for number, (place, sides) in enumerate(zip(self._places, self._sides, strict=True)):
            parts = [self.bank[f"{number}_{side}"] for side in sides]
            replace(self._model, place.name, stand_in(place.module, parts))

    def put_learnt(self, weight_of_part: Callable[[str], Tensor]) -> None:
        """Put the layers back with the weights that their parts have learnt, asked for by key of the bank."""
        for number, (place, layer) in enumerate(zip(self._places, self._shown, strict=True)):
            weights = {side: weight_of_part(f"{number}_{side}") for side in self._sides[number]}
            replace(self._model, place.name, layer.learnt(weights))

    def remove(self) -> None:
        """Put the modules back that were there before."""
        for place in self._places:
            replace(self._model, place.name, place.module)
