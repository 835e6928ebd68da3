"""One healing for all plans that differ only in what comes after it: another rounding costs no second one.

Kept by content, ``<cache>/healings/<model and text>/<plan up to its healing>``, and removed again, the one
that was used longest ago first, when all of them together take more than `hpo.compress.room` allows.
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hpo.compress.method import Healed
from hpo.compress.room import Entry, most_bytes, trim
from hpo.healing_curve import HealingCurve
from hpo.models.cache import MANIFEST, build_once, cache_dir, fetched

_FILE = "state.safetensors"


@dataclass(frozen=True)
class SharedHealing:
    """A healing in the cache, or one that will be."""

    key: str
    """Of the model and the calibration text: that of the factor cache."""
    healed_as: str
    """Hash of the plan up to its healing."""

    @property
    def directory(self) -> Path:
        return cache_dir() / "healings" / self.key / self.healed_as

    def given_to(self, model: nn.Module) -> Healed | None:
        """Put what was learnt into a freshly compressed model; None, and the model as it was, where there
        is nothing or it does not fit."""
        if not fetched(self.directory):
            return None
        try:
            with safe_open(self.directory / _FILE, framework="pt") as file:
                metadata = file.metadata()
                learnt = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (OSError, SafetensorError):  # removed by another process in this moment
            return None
        state = model.state_dict()
        if not all(name in state and state[name].shape == tensor.shape for name, tensor in learnt.items()):
            return None
        with torch.no_grad():
            for name, tensor in learnt.items():
                state[name].copy_(tensor)
        with suppress(OSError):  # removed meanwhile: what was read is whole all the same
            os.utime(self.directory / MANIFEST)
        before, after, steps = (metadata[name] for name in ("before", "after", "steps"))
        told = json.loads(metadata.get("curve", "null"))
        curve = None if told is None else HealingCurve.from_mapping(told)
        return Healed(float(before), float(after), int(steps), shared=self.healed_as, curve=curve)

    def keep(self, model: nn.Module, dense: nn.Module, names: Collection[str], outcome: Healed) -> None:
        """Keep what a healing has made of a model, as far as it is not the dense model's.

        `names` are those of the model's tensors before it was healed. Where they are others now, nothing is
        kept: adapters that stay are modules that a freshly compressed model does not have.
        """
        most, state = most_bytes(), model.state_dict()
        if not most or set(state) != set(names):
            return
        # Cloned, since layers may share a tensor and a file holds each by itself.
        own = {name: tensor.detach().cpu().clone() for name, tensor in _own(state, dense).items()}
        metadata = {"before": repr(outcome.before), "after": repr(outcome.after), "steps": str(outcome.steps)}
        if outcome.curve is not None:
            metadata["curve"] = json.dumps(outcome.curve.to_mapping())

        def fill(directory: Path) -> None:
            save_file(own, directory / _FILE, metadata)

        build_once(self.directory, fill)
        trim(_entries(self.directory.parent.parent), most)


def _own(state: Mapping[str, Tensor], dense: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are not in the memory of the dense model's."""
    shared = {tensor.data_ptr() for tensor in dense.state_dict().values()}
    return {name: tensor for name, tensor in state.items() if tensor.data_ptr() not in shared}


def _entries(parent: Path) -> Iterator[Entry]:
    """Yield when each entry was used last, its bytes and its directory; what is being built is no entry."""
    for manifest in parent.glob(f"*/[!.]*/{MANIFEST}"):
        with suppress(OSError):
            files = [path for path in manifest.parent.iterdir() if path.is_file()]
            yield manifest.stat().st_mtime, sum(path.stat().st_size for path in files), manifest.parent
