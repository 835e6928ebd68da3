"""A study: the constant part of a search. Validated once, when read; frozen ever after."""

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from hpo import registry
from hpo.budget import Budget, Plateau
from hpo.errors import InvalidStudy, Path, did_you_mean
from hpo.space import Parameter, SearchSpace, Value
from hpo.trial import Objective


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class ModelSource(_Part):
    """Which model to compress."""

    source: str = Field(min_length=1)
    """``reference``, a local directory, or a hub id."""
    revision: str | None = None
    """Commit or tag on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision to load in; by default as stored."""
    trust_remote_code: bool = False

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"source": data} if isinstance(data, str) else data


class TextSource(_Part):
    """Where text comes from; exactly one of `reference`, `text`, `documents`, `dataset`."""

    reference: bool = False
    """The part of the interpreter's own documentation that is kept for this purpose."""
    text: str | None = None
    """A text file, read as one stream and cut into windows of the context."""
    documents: str | None = None
    """A JSON file with a list of texts (or of objects with a `text`); each is read alone, BOS first."""
    dataset: str | None = None
    """A dataset on the hub or in its local cache (needs the package `datasets`)."""
    config: str | None = None
    split: str | None = None
    column: str = "text"
    limit: int | None = Field(default=None, ge=1)
    """Use the first so many documents only."""
    tokens: int | None = Field(default=None, ge=2)
    """Use the first so many tokens only."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"reference": True} if data == "reference" else data

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        given = [self.reference or None, self.text, self.documents, self.dataset]
        if sum(source is not None for source in given) != 1:
            raise ValueError("give exactly one of reference, text, documents, dataset")
        return self

    @property
    def all_of_it(self) -> Self:
        """The whole source of which this may be a part."""
        return self.model_copy(update={"limit": None, "tokens": None})


class DataSource(_Part):
    """Text to calibrate and heal on, and other text to judge by."""

    calibration: TextSource
    evaluation: TextSource
    context: int | None = Field(default=None, ge=2)
    """Window length in tokens; by default the model's own, 2048 at most."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        same = self.calibration.all_of_it == self.evaluation.all_of_it
        if same and not self.calibration.reference:
            raise ValueError(
                "calibration and evaluation are the same text|a model must not be judged on what it was "
                "fitted to; name another file, or another split of the dataset"
            )
        return self


class Search(_Part):
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


class Run(_Part):
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
    latency_repeats: int = Field(default=5, ge=5)

    @field_validator("runner")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in registry.names("runner"):
            raise ValueError(f"unknown runner {name!r}|{did_you_mean(name, registry.names('runner'))}")
        return name


class Study(_Part):
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
        if timed and self.run.gpus_per_worker < 1:
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
            raise _first(error, cls) from None


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

_WRONG_KEY = ("extra_forbidden", "invalid_key")
_VALUE_KINDS = (("bool",), ("int",), ("float",), ("str",))
_HINTS = {
    "literal_error": "allowed: {expected}",
    "dict_type": "it must be a mapping of keys to values",
    "tuple_type": "it must be a list",
    "too_short": "name at least one",
}
"""Pydantic's kind of error -> what is allowed, where its own words speak of Python."""

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 3, 120, 120


def space_from_mapping(document: Any) -> SearchSpace:
    """Build a search space from a document; a bare scalar is a parameter with one value.

    Raises:
        InvalidStudy: with its path below ``space``.
    """
    if not isinstance(document, Mapping):
        raise InvalidStudy(
            f"the space is {_shown(document)}", "name parameters with their ranges", ("space",)
        )
    parameters = {}
    for key, given in document.items():
        name = str(key)
        where = ("space", name)
        scalar = isinstance(given, bool | int | float | str)
        value = {"type": "choice", "choices": [given]} if scalar else given
        if not isinstance(value, Mapping):
            raise InvalidStudy(
                f"parameter {name!r} is {_shown(value)}", "give a value, or a type and range", where
            )
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in _TYPES:
            raise InvalidStudy(
                f"parameter {name!r} has {'no type' if kind is None else f'the unknown type {_shown(kind)}'}",
                did_you_mean(str(kind), _TYPES),
                (*where, "type") if kind is not None else where,
            )
        try:
            parameters[name] = _PARAMETER.validate_python(value)
        except ValidationError as error:
            raise _first(error, _TYPES[kind], where, skip=1) from None
    return SearchSpace(parameters)


def _first(
    error: ValidationError, keys: type[BaseModel] | str, base: Path = (), skip: int = 0
) -> InvalidStudy:
    """Turn pydantic's first complaint into ours, with the nearest spelling of a wrong key."""
    details = error.errors(include_url=False)
    first = min(details, key=lambda d: d["type"] not in _WRONG_KEY)
    loc = tuple(first["loc"])[skip:]
    if first["type"] == "invalid_key":  # a file notes the lines of its keys as words
        loc = (*loc[:-1], str(loc[-1]))
    message, hint = _words(first, loc, keys)
    # A list whose items are wrong also counts as too short; a value is wrong once, not as each kind.
    places = {_in_document(d["loc"]) for d in details if d["type"] != "too_short"}
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return InvalidStudy(message + more, hint, (*base, *_in_document(loc)))


def _words(detail: ErrorDetails, loc: Path, keys: type[BaseModel] | str) -> tuple[str, str]:
    kind, place = detail["type"], _in_document(loc)
    key = ".".join(map(str, place))
    given = f"{key} is {_shown(detail.get('input'))}"
    if kind in _WRONG_KEY:
        return f"unknown key {str(loc[-1])!r}", did_you_mean(str(loc[-1]), _allowed(keys, loc[:-1]))
    if kind == "missing":
        return f"the key {key!r} is missing", "add it"
    if kind == "value_error":
        message, _, hint = str(detail["ctx"]["error"]).partition("|")
        return message, hint
    if place != loc:
        return given, "it must be a number, a word, true or false"
    if kind == "model_type":
        return given, f"it must be a mapping with the keys {', '.join(_allowed(keys, loc))}"
    own = detail["msg"][0].lower() + detail["msg"][1:]
    return given, _HINTS[kind].format_map(detail.get("ctx", {})) if kind in _HINTS else own


def _in_document(loc: Path) -> Path:
    """Drop what pydantic adds to a path: the kind it tried behind a value in a list, or ``[key]``.

    A value is an item of a list, or of a mapping in a list.
    """
    is_kind = loc[-1:] in _VALUE_KINDS and any(isinstance(key, int) for key in loc[-3:-1])
    return loc[:-1] if is_kind or loc[-1:] == ("[key]",) else loc


def _shown(value: object) -> str:
    """Return a value as Python writes it, cut short: aliases let a small file hold a huge one."""
    return _REPR.repr(value)


def _allowed(keys: type[BaseModel] | str, loc: Path) -> list[str]:
    return keys.split(", ") if isinstance(keys, str) else _keys_at(keys, loc)


def _keys_at(model: type[BaseModel], loc: Path) -> list[str]:
    """Return the keys allowed at a path below `model`."""
    for key in loc:
        if isinstance(key, str) and key in model.model_fields:
            inner = _models_in(model.model_fields[key].annotation)
            if inner:
                model = inner[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in get_args(annotation) for m in _models_in(part)]
