"""SliceGPT: a narrower residual stream, in principal components of what it carries. Letters: L layers."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from hpo.compress.layer_plan import LayerPlan
from hpo.compress.layers import NarrowEmbedding, NarrowHead, NarrowLinear, SlicedBlock, SlicedNorm
from hpo.compress.materials import Materials
from hpo.compress.method import Pruned
from hpo.compress.plan import Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import Array, ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.slicegpt_bases import SlicedBases
from hpo.compress.slicegpt_layout import layout_of
from hpo.compress.slicegpt_plan import Rotations, Sliced, SlicedStream
from hpo.compress.slicegpt_stream import stream_of
from hpo.compress.surgery import bias_of, replace
from hpo.errors import Unsupported
from hpo.space import Value


class SliceGptKnobs(Knobs):
    """How narrow the stream becomes."""

    keep_ratio: float = Field(gt=0, lt=1)
    """Share of the width to keep, at most: that is the share of the linear layers' weights too, since each
    has the width on one side. The matrices between bases, ``2 * blocks * width^2`` weights, come on top;
    embedding and output layer shrink by the same share."""
    rotations: Rotations = "per_layer"
    """``per_layer``: a basis for what each attention, each MLP and the output layer reads, with matrices
    that take the stream from one to the next. ``shared``: one basis and no such matrices: smaller and
    faster, but it loses more at the same width."""
    multiple: int = Field(default=8, ge=1, le=256)
    """The width is rounded down to a multiple of this, which hardware likes; halved while `keep_ratio` has no
    room."""


class SliceGpt:
    """Turns the residual stream into its principal components and leaves out the last of them.

    An RMS norm without its scale does not see in which basis it stands, so scales move into the layers
    after them, and every matrix that reads or writes the stream is turned: nothing changes at full width. The
    output layer becomes one of its own, as it holds the last norm's scale. For blocks with RMS norms before
    attention and MLP (Llama, Mistral, Qwen2, Qwen3); layer norms, whose mean would have to be moved into the
    layers before them, are refused.

    It differs from the paper in that the bases are those of the dense model, all of them from one run over
    the text; there each is found with everything before it sliced already. So the bases of all widths are
    nested, and a trial slices matrices that were turned once. On the reference model, whose perplexity is
    4.65, that makes 4.792 against 4.786 at 60 % of the width, and 5.346 against 5.356 at 40 %.
    ``rotations: shared`` is not in the paper: 6.43 at 40 %.

    Healing trains the layers of the blocks. With the matrices between bases, embedding and output layer
    beside them it came no further there (50 steps: 5.14 with all of these, 5.11 without, at 40 %).

    Source: SliceGPT, Ashkboos et al. 2024, arXiv:2401.15024.
    """

    stage: ClassVar[Literal["prune"]] = "prune"
    summary: ClassVar[str] = "a narrower model: the principal directions of its residual stream alone"
    paper: ClassVar[str] = "SliceGPT, arXiv:2401.15024"
    knob_type: ClassVar[type[Knobs]] = SliceGptKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        kinds: tuple[Rotations, ...] = ("per_layer", "shared")
        return tuple(SlicedBases(kind) for kind in kinds if kind in knob_values["rotations"])

    def plan(self, profile: ModelProfile, knobs: Knobs) -> Pruned:
        """Return what is left of every layer and of the rest of the stream.

        Raises:
            Unsupported: the model's stream is not known, or too little of it would be left.
        """
        assert isinstance(knobs, SliceGptKnobs)
        layout = layout_of(profile, knobs.rotations)
        width = layout.width(knobs.keep_ratio, knobs.multiple)
        return Pruned(layout.plans(width), (layout.stream(width),))

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        """Make the stream of `model` narrower in place.

        Raises:
            Unsupported: the plan is none of this method's.
        """
        planned = [part for part in plan.rest if isinstance(part, SlicedStream)]
        if not planned:
            raise Unsupported("a plan without a narrower stream", "plan with slicegpt")
        _slice(model, plan, planned[0], materials)

    def damage(self, profile: ModelProfile, layers: Sequence[LayerPlan]) -> Array:
        first = layers[0]
        if not isinstance(first, Sliced):
            return np.zeros(len(layers))
        return layout_of(profile, first.rotations).damage(first.width)


def _slice(model: nn.Module, plan: Plan, planned: SlicedStream, materials: Materials) -> None:
    stream = stream_of(model, plan.architecture)
    width, prepared = planned.width, SlicedBases(planned.rotations).name
    device = next(model.parameters()).device

    def turned(name: str) -> dict[str, Tensor]:
        """Return what is kept of a module."""
        return materials.store.load(prepared, name)

    def columns(name: str) -> Tensor:
        return turned(name)["weight"][:, :width].contiguous().to(device)

    for name in stream.norms:
        norm: Any = model.get_submodule(name)
        replace(model, name, SlicedNorm(planned.dense_width, norm.variance_epsilon))
    for branch in stream.branches:
        for name in branch.readers:
            replace(model, name, NarrowLinear(columns(name), bias_of(model.get_submodule(name))))
        rows = {key: tensor[:width].clone().to(device) for key, tensor in turned(branch.writer).items()}
        replace(model, branch.writer, NarrowLinear(rows["weight"], rows.get("bias")))
    if planned.rotations == "per_layer":
        for block in stream.blocks:
            square = {key: x[:width, :width].contiguous().to(device) for key, x in turned(block.path).items()}
            old = model.get_submodule(block.path)
            replace(model, block.path, SlicedBlock(old, square["to_mlp"], square["to_next"]))
    replace(model, stream.head, NarrowHead(columns(stream.head), bias_of(model.get_submodule(stream.head))))
    embedding = NarrowEmbedding(columns(stream.embedding))
    replace(model, stream.embedding, embedding)
    embedding.connect(model)
