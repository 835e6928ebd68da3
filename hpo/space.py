"""The search space: parameters, conditions between them, and candidates drawn from them.

A parameter named ``factorise`` chooses a method for that stage of compression; its knobs carry the
stage's name before a dot (``factorise.keep_ratio``). A parameter may be conditional (`when`): it is
active only where its parents have one of the named values, and a candidate holds active ones only.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hpo.errors import InvalidStudy, did_you_mean

Value = bool | int | float | str

_EXACT = 2**53
"""Whole numbers up to here are floats too; beyond, the unit cube would miss some."""


class _Parameter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    when: dict[str, tuple[Value, ...]] = Field(default_factory=dict)
    """Parent name -> the values of it under which this parameter is active; all must hold."""
    each: Literal["block"] | None = None
    """Stands for one parameter a block of the model, named ``<name>.0``, ``<name>.1``, ..."""

    @model_validator(mode="before")
    @classmethod
    def _single_values(cls, data: Any) -> Any:
        """Let a file say ``when: {factorise: mpo}`` for ``when: {factorise: [mpo]}``."""
        if isinstance(data, dict) and isinstance(data.get("when"), dict):
            when = {k: v if isinstance(v, list | tuple) else [v] for k, v in data["when"].items()}
            return {**data, "when": when}
        return data


class Float(_Parameter):
    """A real number in [low, high], on a log scale or in steps if asked."""

    type: Literal["float"] = "float"
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(self.low, self.high, self.log, self.step)
        return self

    @property
    def count(self) -> int | None:
        """How many values there are; None if uncountable."""
        if self.low == self.high:
            return 1
        return None if self.step is None else int((self.high - self.low) / self.step + 1e-9) + 1

    def from_unit(self, u: float) -> float:
        """Map u in [0, 1] to a value of 10 digits; the inverse of `to_unit` up to those or the step."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + u * (high - low))
        elif self.step is not None:
            value = self.low + min(int(u * self.steps), self.steps - 1) * self.step
        else:
            value = self.low + u * (self.high - self.low)
        return min(max(float(f"{value:.10g}"), self.low), self.high)

    def to_unit(self, value: Value) -> float:
        number = float(value)
        if self.low == self.high:
            return 0.5
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(number) - low) / (high - low)
        if self.step is not None:
            return (round((number - self.low) / self.step) + 0.5) / self.steps
        return (number - self.low) / (self.high - self.low)

    @property
    def steps(self) -> int:
        return self.count or 1

    def accepts(self, value: Value) -> bool:
        if isinstance(value, bool | str) or not self.low <= value <= self.high:
            return False
        if self.step is None:
            return True
        nearest = self.low + round((value - self.low) / self.step) * self.step
        return math.isclose(value, nearest, rel_tol=1e-9, abs_tol=1e-9 * self.step)

    def describe(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}" + (
            "" if self.step is None else f" in steps of {self.step:g}"
        )


class Int(_Parameter):
    """A whole number in [low, high], on a log scale or in steps if asked."""

    type: Literal["int"] = "int"
    low: int = Field(ge=-_EXACT, le=_EXACT)
    high: int = Field(ge=-_EXACT, le=_EXACT)
    log: bool = False
    step: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_range(self.low, self.high, self.log, self.step if self.step > 1 else None)
        return self

    @property
    def count(self) -> int:
        return (self.high - self.low) // self.step + 1

    def from_unit(self, u: float) -> int:
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            value = round(math.exp(low + u * (high - low)))
        else:
            value = self.low + min(int(u * self.count), self.count - 1) * self.step
        return min(max(value, self.low), self.high)

    def to_unit(self, value: Value) -> float:
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return (math.log(float(value)) - low) / (high - low)
        return (round((float(value) - self.low) / self.step) + 0.5) / self.count

    def accepts(self, value: Value) -> bool:
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high and (value - self.low) % self.step == 0

    def describe(self) -> str:
        return f"a whole number from {self.low} to {self.high}" + (
            f" in steps of {self.step}" if self.step > 1 else ""
        )


class Choice(_Parameter):
    """One of a few named values, without an order."""

    type: Literal["choice"] = "choice"
    choices: tuple[Value, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for i, choice in enumerate(self.choices):
            if isinstance(choice, float) and not math.isfinite(choice):
                raise ValueError(f"the choice {choice} is no finite number")
            if choice in self.choices[:i]:  # 1, 1.0 and true are one value, here as in a candidate
                raise ValueError(f"the choice {choice!r} is named twice")
        return self

    @property
    def count(self) -> int:
        return len(self.choices)

    def from_unit(self, u: float) -> Value:
        return self.choices[min(int(u * self.count), self.count - 1)]

    def to_unit(self, value: Value) -> float:
        return (self.choices.index(value) + 0.5) / self.count

    def accepts(self, value: Value) -> bool:
        return any(value == choice and type(value) is type(choice) for choice in self.choices)

    def describe(self) -> str:
        return "one of " + ", ".join(map(str, self.choices))


Parameter = Annotated[Float | Int | Choice, Field(discriminator="type")]


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if low > high:
        raise ValueError(f"low ({low:g}) is above high ({high:g})")
    if log and low <= 0:
        raise ValueError(f"a log range needs low above 0, got {low:g}")
    if log and step is not None:
        raise ValueError("a log range cannot have a step; leave one of them out")
    if not math.isfinite(high - low) or (step is not None and (high - low) / step > _EXACT):
        raise ValueError(f"the range from {low:g} to {high:g} holds more than can be counted")


@dataclass(frozen=True)
class Candidate:
    """A question: a value for every active parameter. Its `key` is its content.

    The empty candidate is the dense model, to which nothing is done.
    """

    items: tuple[tuple[str, Value], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(sorted(self.items)))

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Self:
        return cls(tuple(values.items()))

    @cached_property
    def values(self) -> Mapping[str, Value]:
        return dict(self.items)

    @cached_property
    def key(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON of the values."""
        text = json.dumps(self.values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def is_dense(self) -> bool:
        return not self.items

    def __str__(self) -> str:
        """Say it in short: ``svd(keep_ratio=0.5) fine_tune(steps=50)``; nothing for what is skipped."""
        words = []
        for name, value in self.items:
            if "." in name:
                continue
            knobs = [
                f"{key.partition('.')[2]}={_short(knob)}"
                for key, knob in self.items
                if key.startswith(f"{name}.")
            ]
            if knobs:
                words.append(f"{_short(value)}({', '.join(knobs)})")
            elif value != "none":
                words.append(_short(value) if isinstance(value, str) else f"{name}={_short(value)}")
        return " ".join(words) or ("dense" if self.is_dense else "nothing")


def _short(value: Value) -> str:
    """Return a value in at most 24 characters: a shift has a number for every layer."""
    said = f"{value:.4g}" if isinstance(value, float) else str(value)
    return said if len(said) <= 24 else f"{said[:23]}…"


@dataclass(frozen=True)
class SearchSpace:
    """Named parameters, parents before children."""

    parameters: Mapping[str, Float | Int | Choice]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise InvalidStudy("the search space is empty", "name at least one parameter", ("space",))
        for name, parameter in self.parameters.items():
            self._check_condition(name, parameter)
        object.__setattr__(self, "parameters", dict(self._parents_first()))

    def _check_condition(self, name: str, parameter: Float | Int | Choice) -> None:
        for parent, values in parameter.when.items():
            where = ("space", name, "when", parent)
            if parent in self.parameters and self.parameters[parent].each:
                raise InvalidStudy(
                    f"{name!r} is conditional on {parent!r}, which there is one of for each block",
                    "make it conditional on a parameter that there is one of",
                    where,
                )
            if parent not in self.parameters:
                others = [other for other in self.parameters if other != name]
                raise InvalidStudy(
                    f"{name!r} is conditional on the unknown parameter {parent!r}",
                    did_you_mean(parent, others),
                    where,
                )
            for value in values:
                if not self.parameters[parent].accepts(value):
                    raise InvalidStudy(
                        f"{name!r} is conditional on {parent}={value!r}, which {parent!r} never is",
                        f"{parent} is {self.parameters[parent].describe()}",
                        where,
                    )

    def _parents_first(self) -> Iterator[tuple[str, Float | Int | Choice]]:
        left = dict(self.parameters)
        while left:
            ready = [name for name, p in left.items() if not any(parent in left for parent in p.when)]
            if not ready:
                raise InvalidStudy(
                    f"the conditions of {', '.join(left)} form a circle", "break it", ("space",)
                )
            for name in ready:
                yield name, left.pop(name)

    def __len__(self) -> int:
        return len(self.parameters)

    def active(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """Names of the parameters that are active under `values` (which may hold inactive ones too)."""
        names: list[str] = []
        for name, parameter in self.parameters.items():
            if all(
                parent in names and values.get(parent) in allowed
                for parent, allowed in parameter.when.items()
            ):
                names.append(name)
        return tuple(names)

    def conditions(self, name: str) -> dict[str, tuple[Value, ...]]:
        """Return the values of every ancestor under which a parameter can be active."""
        found: dict[str, tuple[Value, ...]] = {}
        for parent, values in self.parameters[name].when.items():
            for ancestor, allowed in {**self.conditions(parent), parent: values}.items():
                known = found.get(ancestor, allowed)
                found[ancestor] = tuple(value for value in known if value in allowed)
        return found

    def candidate(self, values: Mapping[str, Value]) -> Candidate:
        """Check `values` and drop inactive ones.

        Raises:
            InvalidStudy: a value is missing, unknown, or outside its parameter.
        """
        for name in values:
            if name not in self.parameters:
                raise InvalidStudy(f"unknown parameter {name!r}", did_you_mean(name, self.parameters))
        active = self.active(values)
        for name in active:
            if name not in values:
                raise InvalidStudy(f"no value for {name!r}", self.parameters[name].describe())
            if not self.parameters[name].accepts(values[name]):
                raise InvalidStudy(
                    f"{name}={values[name]!r} is outside the space",
                    f"it is {self.parameters[name].describe()}",
                )
        return Candidate.of({name: self._as_drawn(name, values[name]) for name in active})

    def _as_drawn(self, name: str, value: Value) -> Value:
        """Say a whole number as the range of reals would, so that one candidate has one key."""
        return float(value) if isinstance(self.parameters[name], Float) else value

    def contains(self, candidate: Candidate) -> bool:
        """Whether `candidate` could have been drawn from this space."""
        try:
            return self.candidate(candidate.values) == candidate
        except InvalidStudy:
            return False

    def from_unit(self, unit: Sequence[float]) -> Candidate:
        """Map a point of the unit cube, one coordinate a parameter, to a candidate."""
        values: dict[str, Value] = {}
        for (name, parameter), u in zip(self.parameters.items(), unit, strict=True):
            values[name] = parameter.from_unit(min(max(float(u), 0.0), 1.0))
        return Candidate.of({name: values[name] for name in self.active(values)})

    def to_unit(self, candidate: Candidate, inactive: float = 0.5) -> tuple[float, ...]:
        """Map a candidate of this space to the unit cube; inactive parameters get `inactive`."""
        return tuple(
            parameter.to_unit(candidate.values[name]) if name in candidate.values else inactive
            for name, parameter in self.parameters.items()
        )

    @cached_property
    def size(self) -> int | None:
        """An upper bound on the number of candidates (conditions ignored); None if uncountable."""
        total = 1
        for parameter in self.parameters.values():
            if parameter.count is None:
                return None
            total *= parameter.count
        return total

    def to_mapping(self) -> dict[str, Any]:
        return {
            name: parameter.model_dump(mode="json", exclude_defaults=True) | {"type": parameter.type}
            for name, parameter in self.parameters.items()
        }

    @property
    def has_templates(self) -> bool:
        """Whether the number of parameters still depends on the model."""
        return any(parameter.each for parameter in self.parameters.values())

    def for_blocks(self, blocks: int) -> Self:
        """Return the space for a model of so many blocks: templates spelt out, the rest as it is."""
        found: dict[str, Float | Int | Choice] = {}
        for name, parameter in self.parameters.items():
            if parameter.each is None:
                found[name] = parameter
            else:
                plain = parameter.model_copy(update={"each": None})
                found |= {f"{name}.{block}": plain for block in range(blocks)}
        return type(self)(found)

    @classmethod
    def of(cls, parameters: Iterable[tuple[str, Float | Int | Choice]]) -> Self:
        return cls(dict(parameters))
