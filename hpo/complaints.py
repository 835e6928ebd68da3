"""What pydantic finds wrong with a document, in words about the document."""

import reprlib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpo.errors import InvalidStudy, Path, did_you_mean

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


def complaint(
    error: ValidationError, keys: type[BaseModel] | str, base: Path = (), skip: int = 0
) -> InvalidStudy:
    """Turn pydantic's first complaint into ours, with the nearest spelling of a wrong key.

    Args:
        keys: the model that was validated, or the keys that it has, with commas between them.
        base: where in the document it stands.
        skip: so many leading keys of pydantic's path are not of the document.
    """
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
    given = f"{key} is {shown(detail.get('input'))}"
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


def shown(value: object) -> str:
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
