"""A small valid study document, and changes to it."""

import copy
from collections.abc import Mapping
from typing import Any, cast

from hpo.errors import Path

SPACE = {
    "factorise": {"type": "choice", "choices": ["svd", "mpo"]},
    "factorise.keep_ratio": {"type": "float", "low": 0.1, "high": 0.9, "when": {"factorise": "svd"}},
}
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "name": "quick",
    "model": {"source": "reference"},
    "objectives": [{"metric": "perplexity", "limit": {"ratio_to_dense": 2.0}}, "weight_memory"],
    "space": SPACE,
    "budget": {"trials": 10},
}

REMOVE = object()


def changed(path: Path, value: object) -> dict[str, Any]:
    """Return the document with the value at `path` replaced, added, or removed; () adds a mapping."""
    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
    if not path:
        return document | dict(cast(Mapping[str, Any], value))
    place: Any = document
    for key in path[:-1]:
        if isinstance(place, dict):
            place.setdefault(key, {})
        place = place[key]
    if value is REMOVE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document
