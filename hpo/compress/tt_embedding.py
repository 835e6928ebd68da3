"""The token embedding, and the output layer where they are one, as a tensor train."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import nn

from hpo.compress.allocate import tail_energy
from hpo.compress.architecture import EmbeddingShape
from hpo.compress.layers import TtEmbedding as TtEmbeddingLayer
from hpo.compress.layers import TtHead, TtTable
from hpo.compress.materials import Materials
from hpo.compress.mpo_math import balanced_cores, sliced
from hpo.compress.plan import PartPlan, Plan
from hpo.compress.preparation import Preparation
from hpo.compress.profile import ModelProfile
from hpo.compress.recipe import Knobs
from hpo.compress.surgery import bias_of, replace
from hpo.compress.tt_embedding_plan import Contraction, TtEmbedding, with_bond, within
from hpo.compress.tt_embedding_plan import TtTable as TtTablePlan
from hpo.compress.tt_tables import Of, TtTables
from hpo.errors import HpoError, Unsupported
from hpo.space import Value


class TtEmbeddingKnobs(Knobs):
    """How much to keep (exactly one of `keep_ratio`, `bond_dimension`), and of what."""

    keep_ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of each table's weights to keep; bonds are chosen by their spectra."""
    bond_dimension: int | None = Field(default=None, ge=1)
    """The largest bond; clipped at each cut to what can carry information."""
    sites: int = Field(default=3, ge=2, le=3)
    """How many cores; vocabulary and width are split into as many factors, as equal as can be."""
    weighting: Literal["none", "frequency"] = "frequency"
    """Whether tokens are put in order of their frequency in the calibration text and count by it."""
    head: Literal["dense", "cores"] = "dense"
    """What becomes of an output layer with a matrix of its own. A tied one has the embedding's cores."""
    contraction: Contraction = "rebuild"
    """How the output layer computes; ``cached`` is small on disk only."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.keep_ratio is None) == (self.bond_dimension is None):
            raise ValueError("give exactly one of keep_ratio, bond_dimension")
        return self


class TensorTrainEmbedding:
    """One tensor train for the whole table of the embedding, and for the output layer if that is the same.

    Source: TensorGPT, Xu et al. 2023, arXiv:2307.00526; see `hpo.compress.tt_embedding_math`.
    """

    stage: ClassVar[Literal["embed"]] = "embed"
    summary: ClassVar[str] = "tensor-train cores of the embedding, and of the output layer"
    paper: ClassVar[str] = "TensorGPT, arXiv:2307.00526"
    knob_type: ClassVar[type[Knobs]] = TtEmbeddingKnobs

    def preparations(self, knob_values: Mapping[str, Sequence[Value]]) -> tuple[Preparation, ...]:
        wanted: tuple[Of, ...] = ("embedding", "head") if "cores" in knob_values["head"] else ("embedding",)
        return tuple(
            TtTables(int(sites), weighting == "frequency", of)
            for sites in knob_values["sites"]
            for weighting in knob_values["weighting"]
            for of in wanted
        )

    def plan(self, profile: ModelProfile, knobs: Knobs) -> PartPlan | None:
        assert isinstance(knobs, TtEmbeddingKnobs)
        shape = _shape_of(profile.architecture.embedding)
        has_cores = knobs.head == "cores" and not shape.tied
        if has_cores and not shape.head:
            raise Unsupported("the output layer has not the shape of the embedding", "allowed: head: dense")
        table = _table(profile, knobs, shape, "embedding")
        head = _table(profile, knobs, shape, "head") if has_cores else None
        if max(x.parameters for x in (table, head or table)) >= table.dense:
            return None
        is_weighted = knobs.weighting == "frequency"
        return TtEmbedding(table, shape.tied, head, is_weighted, knobs.contraction)

    def apply(self, model: nn.Module, plan: Plan, materials: Materials) -> None:
        shape, planned = _shape_of(plan.architecture.embedding), plan.embedding
        if planned is None:
            return
        if not isinstance(planned, TtEmbedding):
            raise Unsupported(f"{planned.kind} in a plan of tensor trains", "allowed: tt_embedding")
        table = TtEmbeddingLayer(_loaded(model, planned, planned.table, "embedding", shape.name, materials))
        if planned.tied:
            head = TtHead(table, shape.name, bias_of(model.get_submodule(shape.head)))
            replace(model, shape.head, head)
        elif planned.head is not None:
            own = _loaded(model, planned, planned.head, "head", shape.head, materials)
            replace(model, shape.head, TtHead(own, "", bias_of(model.get_submodule(shape.head))))
        replace(model, shape.name, table)


def _shape_of(shape: EmbeddingShape | None) -> EmbeddingShape:
    if shape is None:
        raise Unsupported(
            "the model has no plain token embedding of its whole width", "leave the stage embed out"
        )
    return shape


def _table(profile: ModelProfile, knobs: TtEmbeddingKnobs, shape: EmbeddingShape, of: Of) -> TtTablePlan:
    if knobs.bond_dimension is not None:
        return with_bond(shape.vocabulary, shape.width, knobs.sites, knobs.bond_dimension)
    assert knobs.keep_ratio is not None
    prepared = TtTables(knobs.sites, knobs.weighting == "frequency", of).name
    if prepared not in profile.arrays:
        raise HpoError(f"the model profile lacks {prepared!r}", "profile the model again for this space")
    name = shape.name if of == "embedding" else shape.head
    tails = [tail_energy(profile.arrays[prepared][f"{name}@{k}"]) for k in range(knobs.sites - 1)]
    budget = knobs.keep_ratio * shape.vocabulary * shape.width
    return within(budget, shape.vocabulary, shape.width, tails)


def _loaded(
    model: nn.Module, planned: TtEmbedding, table: TtTablePlan, of: Of, name: str, materials: Materials
) -> TtTable:
    """Return the table of a module, its cores sliced to the planned bonds and of even scale."""
    prepared = TtTables(len(table.row_sites), planned.is_weighted, of)
    tensors = materials.store.load(prepared.name, name)
    device = model.get_parameter(f"{name}.weight").device
    cores = sliced([tensors[f"core{k}"] for k in range(len(table.row_sites))], table.bonds)
    places = tensors["places"].to(device) if planned.is_weighted else None
    even = [core.to(device).contiguous() for core in balanced_cores(cores)]
    return TtTable(even, places, table.vocabulary, planned.contraction)
