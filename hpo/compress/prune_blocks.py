"""ShortGPT: whole blocks that hardly change what passes through them are removed.

Letters: B blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import nn

from hpo.compress.blocks import block_names
from hpo.compress.layer_plan import Dense, LayerPlan
from hpo.compress.layers import Skipped
from hpo.compress.materials import Materials
from hpo.compress.method import Pruned
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.prune_block_facts import BLOCK_FACTS, number_of
from hpo.compress.prune_plan import Removed, RemovedBlock, removed
from hpo.compress.recipe import Knobs
from hpo.compress.sensitivity import BLOCK_INFLUENCE
from hpo.compress.surgery import replace
from hpo.errors import Unsupported
from hpo.space import Value


class DropBlocksKnobs(Knobs):
    """How many blocks go: a number, or a share of the weights to keep; one of the two."""

    blocks: int | None = Field(default=None, ge=1)
    """So many blocks are removed."""
    keep_ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of the linear layers' weights to keep, met to half a block: the nearest there is."""
    protect_first: int = Field(default=0, ge=0)
    """So many blocks at the beginning stay."""
    protect_last: int = Field(default=0, ge=0)
    """So many blocks at the end stay."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.blocks is None) == (self.keep_ratio is None):
            raise ValueError("give either blocks or keep_ratio")
        return self


class DropBlocks:
    """Removes the blocks with the least influence, 1 - cos(what enters, what leaves), all at once.

    The first block stays, since a cache of transformers takes its number of tokens from it
    (`DynamicCache.get_seq_length`), and so does the first of each kind of attention, of which masks take
    their size. Healing by factors finds none here; adapters (``heal: lora``) train the blocks that stay.

    Source: ShortGPT, Men et al. 2024, arXiv:2403.03853.
    """

    stage: ClassVar[Literal["prune"]] = "prune"
    summary: ClassVar[str] = "remove whole blocks that turn the hidden states least"
    paper: ClassVar[str] = "ShortGPT, arXiv:2403.03853"
    knob_type: ClassVar[type[Knobs]] = DropBlocksKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        return (BLOCK_INFLUENCE, BLOCK_FACTS)

    def plan(self, profile: ModelProfile, knobs: Knobs) -> Pruned:
        """Return plans without the blocks that go.

        Raises:
            Unsupported: fewer blocks may go than are to.
        """
        assert isinstance(knobs, DropBlocksKnobs)
        known = _Known.of(profile)
        gone = known.chosen(knobs)
        numbers = {int(known.facts["number"][index]) for index in gone}
        layers = tuple(
            removed(shape.out_features, shape.in_features)
            if shape.block in numbers
            else Dense(shape.out_features, shape.in_features)
            for shape in profile.shapes
        )
        return Pruned(layers, tuple(known.beside(index) for index in gone))

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        numbers = {shape.block for shape, layer in plan.named() if isinstance(layer, Removed)}
        for name in block_names(model):
            if number_of(name) in numbers:
                replace(model, name, Skipped())

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        known = _Known.of(profile)
        turned = dict(zip(known.facts["number"].astype(int).tolist(), known.influences, strict=True))
        return np.array(
            [
                np.sqrt(np.clip(turned[shape.block], 0, 1)) if isinstance(layer, Removed) else 0.0
                for shape, layer in zip(profile.shapes, layers, strict=True)
            ]
        )


@dataclass(frozen=True)
class _Known:
    """What the profile tells of the blocks."""

    profile: ModelProfile
    influences: Array
    """Shape (B,), as every fact."""
    facts: Mapping[str, Array]

    @classmethod
    def of(cls, profile: ModelProfile) -> Self:
        influences = profile.prepared(BLOCK_INFLUENCE.name)["influence"]
        return cls(profile, influences, profile.prepared(BLOCK_FACTS.name))

    def chosen(self, knobs: DropBlocksKnobs) -> list[int]:
        """Return the blocks that go, ascending."""
        count, free = len(self.influences), self.facts["stays"] == 0
        free[: knobs.protect_first] = False
        free[count - min(knobs.protect_last, count) :] = False
        order = [int(index) for index in np.argsort(self.influences, kind="stable") if free[index]]
        return sorted(order[: self._wanted(knobs, order)])

    def _wanted(self, knobs: DropBlocksKnobs, order: Sequence[int]) -> int:
        """Return how many of the blocks that may go do."""
        if knobs.blocks is not None:
            if knobs.blocks > len(order):
                raise self._too_many(f"blocks={knobs.blocks}", len(order))
            return knobs.blocks
        assert knobs.keep_ratio is not None
        shares = self._weights / self._weights.sum()
        kept = 1 - np.concatenate([[0.0], np.cumsum(shares[list(order)])])
        if knobs.keep_ratio < kept[-1] - shares.max() / 2:
            raise self._too_many(f"keep_ratio={knobs.keep_ratio:g}", len(order))
        misses = np.round(np.abs(kept - knobs.keep_ratio), 9)
        return len(misses) - 1 - int(np.argmin(misses[::-1]))  # of two as near, the one that keeps less

    def _too_many(self, asked: str, may_go: int) -> Unsupported:
        odd = sorted({key.partition("@")[2] for key in self.facts if "@" in key})
        unknown = f", and {', '.join(odd)} cannot be skipped" if odd else ""
        return Unsupported(
            f"{asked}, but of {len(self.influences)} blocks {may_go} may go: the first one stays, caches "
            f"keep count by it; so do protected ones{unknown}",
            "remove fewer blocks, or protect fewer",
        )

    @property
    def _weights(self) -> NDArray[np.float64]:
        """Of the linear layers of each block, (B,)."""
        shapes = self.profile.shapes
        weights = np.bincount([x.block for x in shapes], weights=[float(x.parameters) for x in shapes])
        return np.asarray(weights[self.facts["number"].astype(int)])

    def beside(self, index: int) -> RemovedBlock:
        """Return what goes with a block beside its linear layers."""
        architecture = self.profile.architecture
        number, parameters, held, macs, scores = (
            int(self.facts[name][index]) for name in ("number", "parameters", "bytes", "macs", "scores")
        )
        return RemovedBlock(
            number, parameters, held, macs, scores, architecture.context, architecture.weight_bits
        )
