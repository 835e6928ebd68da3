"""A study: the constant part of a search. Validated once, when read; frozen ever after."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from hpo import registry
from hpo.budget import Budget, Plateau
from hpo.complaints import complaint, shown
from hpo.errors import InvalidStudy, did_you_mean
from hpo.space import Parameter, SearchSpace, Value
from hpo.study_sources import DataSource, ModelSource, Part, TextSource
from hpo.trial import Objective

__all__ = ["DataSource", "Lane", "ModelSource", "Run", "Search", "Study", "TextSource"]


class Search(Part):
    """How candidates are chosen."""

    sampler: str = "bayesian"
    seed: int = Field(default=0, ge=0)
    initial: int = Field(default=8, ge=1)
    """Quasi-random candidates between the anchors and the first model-based one."""
    stopping: Literal["pareto", "none"] = "pareto"
    """Whether a trial is stopped before it is measured, once even its optimistic outcome is beaten."""
    plateau: Plateau | None = None
    """Ends the study once its front grows too slowly; by default only the budget ends it."""
    first: tuple[dict[str, Value], ...] = ()
    """Candidates to try right after the anchors, each with a value for every active parameter."""
    warm_start: tuple[str, ...] = ()
    """Studies in the same store, of another model or device, from whose trials the search may learn."""
    refine: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    """Share of the budget, at its end, that goes into moving weights or bits from layer to layer in what is
    on the front."""

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in registry.names("sampler"):
            raise ValueError(f"unknown sampler {name!r}|{did_you_mean(name, registry.names('sampler'))}")
        return name

    @field_validator("warm_start")
    @classmethod
    def _studies(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _check_name(name)
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} is named twice|name each study once")
        return names


LANE_STAGES = ("time",)
"""Stages that may be done by workers of their own: the last one, so that what is handed on is whole."""


class Lane(Part):
    """Workers of their own for one stage: those of the device that figures are wanted of."""

    workers: int = Field(default=1, ge=1)
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """What a worker takes of the custom resources of its Ray node, e.g. ``{target: 1}``."""
    accelerator: str | None = None
    """Kind of accelerator that a node must have, as Ray names it, e.g. ``L4`` or ``H100``."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; by default those of `run.threads`."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not self.resources and self.accelerator is None:
            raise ValueError(
                "a lane names no device|give resources (custom resources of the Ray nodes that have it, e.g. "
                "{target: 1}) or accelerator (e.g. L4)"
            )
        if known := {"CPU", "GPU", "memory", "object_store_memory"} & set(self.resources):
            raise ValueError(
                f"a lane asks for {', '.join(sorted(known))}, which is no custom resource|"
                "set device and threads; resources are names that you give nodes with ray start --resources"
            )
        if self.accelerator is not None and self.device == "cpu":
            raise ValueError(f"a lane asks for the accelerator {self.accelerator} and device: cpu|drop one")
        return self


class Run(Part):
    """Where and how trials run."""

    runner: str = "ray"
    workers: int = Field(default=1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus_per_worker: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Less than 1 shares a GPU, which is refused where latency or energy is measured."""
    threads: int = Field(default=1, ge=1)
    """CPU threads a worker computes and is timed with."""
    attempts: int = Field(default=3, ge=1)
    """How often a trial is tried when its worker is lost."""
    stage_timeout_s: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    worker_lease_s: float = Field(default=30.0, ge=1, allow_inf_nan=False)
    """For how long a worker may give no sign of life before it is ended and its trial tried elsewhere."""
    latency_repeats: int = Field(default=5, ge=5)
    lanes: dict[str, Lane] = Field(default_factory=dict)
    """Stages that workers of their own do; `time` (latency and energy) on the device that is asked about,
    while all other stages run anywhere."""

    @field_validator("runner")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in registry.names("runner"):
            raise ValueError(f"unknown runner {name!r}|{did_you_mean(name, registry.names('runner'))}")
        return name

    @field_validator("lanes")
    @classmethod
    def _of_stages(cls, lanes: dict[str, Lane]) -> dict[str, Lane]:
        if strange := sorted(set(lanes) - set(LANE_STAGES)):
            raise ValueError(f"no stage {strange[0]!r} has a lane|{did_you_mean(strange[0], LANE_STAGES)}")
        return lanes

    @model_validator(mode="after")
    def _lanes_have_workers(self) -> Self:
        if self.lanes and self.runner == "in_process":
            raise ValueError("lanes need workers on several devices|set run.runner: ray, or drop run.lanes")
        return self


class Study(Part):
    """What is searched, for which model, by which objectives, within which budget."""

    version: Literal[1]
    name: Annotated[str, Field(min_length=1, max_length=120)]
    question: str = ""
    """What the study is to answer; shown with its front."""
    model: ModelSource
    data: DataSource = DataSource(
        calibration=TextSource(reference=True), evaluation=TextSource(reference=True)
    )
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1)]
    space: SearchSpace
    search: Search = Search()
    budget: Budget
    run: Run = Run()

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        return _check_name(name)

    @field_validator("objectives")
    @classmethod
    def _distinct(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        seen = [o.metric for o in objectives]
        if twice := {m for m in seen if seen.count(m) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} is named twice|name each metric once")
        return objectives

    @field_validator("space", mode="before")
    @classmethod
    def _space(cls, data: Any) -> SearchSpace:
        return data if isinstance(data, SearchSpace) else space_from_mapping(data)

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        timed = [o.metric for o in self.objectives if "latency" in o.metric or o.metric == "energy"]
        if timed and self.run.gpus_per_worker < 1 and "time" not in self.run.lanes:
            raise InvalidStudy(
                f"{', '.join(timed)} cannot be measured on a shared GPU, "
                f"and run.gpus_per_worker is {self.run.gpus_per_worker:g}",
                "set run.gpus_per_worker to 1, or drop the objective",
                ("run", "gpus_per_worker"),
            )
        return self

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if self.budget.gpu_hours is not None and self.run.device == "cpu":
            raise no_gpu_hours("run.device is 'cpu'")
        if self.budget.joules is not None and self.run.device != "cpu" and self.run.gpus_per_worker < 1:
            raise InvalidStudy(
                "joules cannot be counted for each trial on a shared GPU, "
                f"and run.gpus_per_worker is {self.run.gpus_per_worker:g}",
                "set run.gpus_per_worker to 1, or give a budget in gpu_hours, hours or trials",
                ("budget", "joules"),
            )
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical document; two studies of one hash ask the same question."""
        text = json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_mapping(self) -> dict[str, Any]:
        document = self.model_dump(mode="json", exclude={"space"})
        return document | {"space": self.space.to_mapping()}

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> Self:
        """Validate a resolved document (its space written out).

        Raises:
            InvalidStudy: the first thing that is wrong, with its path in the document.
        """
        try:
            return cls.model_validate(dict(document))
        except ValidationError as error:
            raise complaint(error, cls) from None


def _check_name(name: str) -> str:
    """Return a study's name.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            f"the name is {name!r}|a study name has letters, digits, '.', '_' and '-' only, "
            "and begins with a letter or digit"
        )
    return name


def no_gpu_hours(why: str) -> InvalidStudy:
    """Return the refusal of a budget in GPU-hours where trials run on the processor."""
    return InvalidStudy(
        f"no GPU-hours are spent on a processor, and {why}",
        "give budget.hours (wall-clock time) or budget.trials instead, or run on a GPU",
        ("budget", "gpu_hours"),
    )


_PARAMETER: TypeAdapter[Any] = TypeAdapter(Parameter)
_RANGE = "low, high, log, step, type, when"
_TYPES = {"float": _RANGE, "int": _RANGE, "choice": "choices, type, when"}


def space_from_mapping(document: Any) -> SearchSpace:
    """Build a search space from a document; a bare scalar is a parameter with one value.

    Raises:
        InvalidStudy: with its path below ``space``.
    """
    if not isinstance(document, Mapping):
        raise InvalidStudy(f"the space is {shown(document)}", "name parameters with their ranges", ("space",))
    parameters = {}
    for key, given in document.items():
        name = str(key)
        where = ("space", name)
        scalar = isinstance(given, bool | int | float | str)
        value = {"type": "choice", "choices": [given]} if scalar else given
        if not isinstance(value, Mapping):
            raise InvalidStudy(
                f"parameter {name!r} is {shown(value)}", "give a value, or a type and range", where
            )
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in _TYPES:
            raise InvalidStudy(
                f"parameter {name!r} has {'no type' if kind is None else f'the unknown type {shown(kind)}'}",
                did_you_mean(str(kind), _TYPES),
                (*where, "type") if kind is not None else where,
            )
        try:
            parameters[name] = _PARAMETER.validate_python(value)
        except ValidationError as error:
            raise complaint(error, _TYPES[kind], where, skip=1) from None
    return SearchSpace(parameters)
