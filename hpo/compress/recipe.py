"""From a candidate to the methods and knobs it names, stage by stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hpo import registry
from hpo.compress.order import ORDER, STAGES, parsed, sequence
from hpo.errors import InvalidStudy, Unsupported, did_you_mean
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value

NONE = "none"
"""The choice that skips a stage."""

_ENUMERABLE = 256


class Knobs(BaseModel):
    """Base of every method's knobs: frozen, and unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Step:
    """A method with its knobs."""

    name: str
    method: Any
    """An instance of the registered class; see `hpo.compress.method`."""
    knobs: Knobs


def methods(stage: str) -> tuple[str, ...]:
    """Return the names of the methods of a stage."""
    return tuple(name for name in registry.names("method") if registry.load("method", name).stage == stage)


def step(candidate: Candidate, stage: str) -> Step | None:
    """Return what a candidate does in a stage; None if nothing.

    Raises:
        NotFound: there is no such method.
        Unsupported: a knob is missing, unknown to the method, or out of its range.
    """
    name = candidate.values.get(stage, NONE)
    if name == NONE:
        return None
    method = registry.load("method", str(name))()
    prefix = f"{stage}."
    given = _gathered({k.removeprefix(prefix): v for k, v in candidate.items if k.startswith(prefix)})
    try:
        return Step(str(name), method, method.knob_type.model_validate(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([stage, *map(str, first["loc"])])
        raise Unsupported(f"{name}: {where}: {first['msg']}", f"given: {candidate}") from None


def stages_of(candidate: Candidate) -> tuple[str, ...]:
    """Return the stages that a candidate uses, in the order in which they are applied.

    Raises:
        Unsupported: the order that it names makes no sense, or leaves out a stage.
    """
    chosen = [stage for stage in STAGES if candidate.values.get(stage, NONE) != NONE]
    order = candidate.values.get(ORDER)
    return sequence(chosen, None if order is None else str(order))


def _gathered(knobs: Mapping[str, Value]) -> dict[str, Value | tuple[Value, ...]]:
    """Put ``knob.0``, ``knob.1``, ... (one a block) together into one tuple, ``knob``."""
    found: dict[str, Value | tuple[Value, ...]] = {}
    lists: dict[str, dict[int, Value]] = {}
    for name, value in knobs.items():
        knob, _, index = name.partition(".")
        if index.isdecimal():
            lists.setdefault(knob, {})[int(index)] = value
        else:
            found[name] = value
    return found | {knob: tuple(values[k] for k in sorted(values)) for knob, values in lists.items()}


def check_space(space: SearchSpace) -> None:
    """Refuse a space that names a stage, method or knob nobody knows, or a range no method takes.

    Raises:
        InvalidStudy: with its path below ``space``.
    """
    for name, parameter in space.parameters.items():
        stage, _, knob = name.partition(".")
        if name == ORDER:
            _check_orders(parameter)
            continue
        if stage not in STAGES:
            hint = did_you_mean(stage, (*STAGES, ORDER))
            raise InvalidStudy(f"unknown stage {stage!r}", hint, ("space", name))
        if not knob:
            _check_methods(name, parameter)
        elif stage not in space.parameters:
            raise InvalidStudy(
                f"{name!r} needs the parameter {stage!r} to choose a method",
                f"add {stage}: one of {', '.join(methods(stage))}",
                ("space", name),
            )
        else:
            _check_knob(space, stage, knob, parameter)


def _check_orders(parameter: Float | Int | Choice) -> None:
    """Orders may leave out stages that a study does not use; what a candidate needs is checked with it."""
    if not isinstance(parameter, Choice):
        raise InvalidStudy(
            f"{ORDER!r} is a range", "it is a choice of words such as factorise > heal", ("space", ORDER)
        )
    for order in parameter.choices:
        try:
            parsed(str(order))
        except Unsupported as error:
            raise InvalidStudy(error.message, error.hint, ("space", ORDER, "choices")) from None


def _check_methods(stage: str, parameter: Float | Int | Choice) -> None:
    allowed = (*methods(stage), NONE)
    if not isinstance(parameter, Choice):
        raise InvalidStudy(
            f"{stage!r} is a range", f"it is a choice of {', '.join(allowed)}", ("space", stage)
        )
    for name in parameter.choices:
        if name not in allowed:
            where = ("space", stage, "choices")
            raise InvalidStudy(f"unknown method {name!r}", did_you_mean(str(name), allowed), where)


def _check_knob(space: SearchSpace, stage: str, name: str, parameter: Float | Int | Choice) -> None:
    knob, _, index = name.partition(".")  # ``block_weight.0`` is the first of a knob with one value a block
    chosen = [str(name) for name in values_of(space, stage) if name != NONE]
    under = space.conditions(f"{stage}.{name}").get(stage)
    chosen = [method for method in chosen if under is None or method in under]
    kinds = {method: registry.load("method", method).knob_type for method in chosen}
    where = ("space", f"{stage}.{name}")
    for method, kind in kinds.items():
        if knob not in kind.model_fields:
            hint = f"did you forget when: {{{stage}: ...}}? " if len(kinds) > 1 else ""
            raise InvalidStudy(
                f"{method} has no knob {knob!r}", hint + did_you_mean(knob, kind.model_fields), where
            )
        for value in _ends(parameter):
            is_one_of_many = parameter.each is not None or index.isdecimal()
            _check_value(method, kind, knob, (value,) if is_one_of_many else value, where)


def _check_value(
    name: str, kind: type[Knobs], knob: str, value: Value | tuple[Value, ...], where: tuple[str, ...]
) -> None:
    try:
        kind.__pydantic_validator__.validate_assignment(kind.model_construct(), knob, value)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["loc"][:1] == (knob,) and detail["type"] != "frozen_instance":
                raise InvalidStudy(
                    f"{name} cannot take {knob}={value!r}", detail["msg"].lower(), where
                ) from None


def _ends(parameter: Float | Int | Choice) -> Sequence[Value]:
    if isinstance(parameter, Choice):
        return parameter.choices
    return (parameter.low, parameter.high)


def values_of(space: SearchSpace, name: str) -> tuple[Value, ...]:
    """Return every value a discrete parameter may take; empty if absent, continuous, or too many."""
    parameter = space.parameters.get(name)
    if isinstance(parameter, Choice):
        return tuple(parameter.choices)
    if isinstance(parameter, Int) and parameter.count <= _ENUMERABLE:
        return tuple(range(parameter.low, parameter.high + 1, parameter.step))
    return ()


def knob_values(space: SearchSpace, stage: str, kind: type[Knobs]) -> Mapping[str, tuple[Value, ...]]:
    """Return, for each knob of a method, the values the space may give it; nothing for a continuous one.

    The default is among them where the space does not name the knob, or not under all conditions.
    """
    found: dict[str, tuple[Value, ...]] = {}
    for knob, field in kind.model_fields.items():
        parameter, values = space.parameters.get(f"{stage}.{knob}"), values_of(space, f"{stage}.{knob}")
        may_be_left = parameter is None or (values and set(parameter.when) - {stage})
        if may_be_left and not field.is_required():
            values = tuple(dict.fromkeys((*values, field.default)))
        found[knob] = values
    return found
