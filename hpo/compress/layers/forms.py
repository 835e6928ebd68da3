"""The table of packed forms. A new one is a class in a file of its own, and a line here."""

from collections.abc import Mapping
from typing import Any

from hpo.compress.layers.codebook import NormalLevels
from hpo.compress.layers.int8 import Int8
from hpo.compress.layers.packed import Packed, Rounded
from hpo.compress.layers.scaled import Scaled
from hpo.compress.layers.sparse_packed import SparsePacked
from hpo.compress.layers.tables import Tabled
from hpo.compress.layers.ternary import Ternary

FORMS: dict[str, type[Packed]] = {
    "rounded": Rounded,
    "scaled": Scaled,
    "int8": Int8,
    "sparse": SparsePacked,
    "nf4": NormalLevels,
    "tables": Tabled,
    "ternary": Ternary,
}
"""By the name under which a configuration lists them."""


def empty_packed(size: Mapping[str, Any]) -> Packed:
    """Return a packed matrix of the form and size given, its values not set."""
    inside = {name: empty_packed(part) for name, part in size.items() if _is_packed(part)}
    return FORMS[size["form"]].empty({**size, **inside})


def _is_packed(part: Any) -> bool:
    return isinstance(part, Mapping) and "form" in part
