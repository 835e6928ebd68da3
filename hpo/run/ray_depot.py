"""Ship a model's directory from where a study is launched to nodes that lack it, when they ask for it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpo.models.shipped import ShippedModel
from hpo.run.bench import BenchSpec

_PIECE = 2**26
"""Bytes that travel at a time."""


class _Depot:
    """The actor, on the launching machine: reads out the files that it was made with, and no others."""

    def __init__(self, model: ShippedModel) -> None:
        self._model = model

    def piece(self, name: str, offset: int, size: int) -> Any:
        if name not in self._model.files:
            raise KeyError(name)
        with (Path(self._model.directory) / name).open("rb") as file:
            file.seek(offset)
            # An array, since Ray keeps arrays as they are where bytes would be copied once more.
            return np.frombuffer(file.read(size), np.uint8)


@dataclass(frozen=True)
class Shipment:
    """A model, and who hands it out."""

    model: ShippedModel
    depot: ActorHandle

    @classmethod
    def of(cls, directory: Path) -> "Shipment":
        """Offer a directory of this machine to the cluster that it has joined."""
        model = ShippedModel.of(directory)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        depot = ray.remote(_Depot).options(num_cpus=0, scheduling_strategy=here).remote(model)
        return cls(model, depot)

    def _read(self, name: str) -> Iterator[bytes]:
        size, _ = self.model.files[name]
        for offset in range(0, size, _PIECE):
            yield ray.get(self.depot.piece.remote(name, offset, _PIECE)).tobytes()

    def received(self, spec: BenchSpec) -> BenchSpec:
        """Return the spec with the model's source as it is on this node; fetches it if need be.

        Raises:
            ModelError: it was damaged on its way.
        """
        source = self.model.place(self._read)
        model = {**spec.document["model"], "source": str(source)}
        return replace(spec, document={**spec.document, "model": model})


def shipment_of(spec: BenchSpec) -> Shipment | None:
    """Offer the model of a bench to other nodes; None where it is no directory of this machine."""
    model = spec.document.get("model")
    source = model.get("source", "") if isinstance(model, dict) else ""
    directory = Path(source).expanduser()
    is_local = bool(source) and (directory / "config.json").is_file()
    return Shipment.of(directory.absolute()) if is_local else None
