"""What a search page is asked to show; it stands in the page's address, so that a link can be passed on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qs, urlencode


@dataclass(frozen=True)
class SearchChoice:
    """The axis of the hypervolume, the work that is asked about, and the parameter and objective of the
    slice; each empty where there is nothing to choose from."""

    over: str
    more: str
    parameter: str
    objective: str

    @classmethod
    def read(cls, search: str | None, offered: Mapping[str, Sequence[str]]) -> Self:
        """Return what the query part of an address asks for. What is missing there, or not offered, is the
        first that is.

        Args:
            offered: field -> values.
        """
        asked = parse_qs((search or "").lstrip("?"))
        found = {}
        for field, values in offered.items():
            value = asked.get(field, [""])[0]
            found[field] = value if value in values else next(iter(values), "")
        return cls(**found)

    @property
    def search(self) -> str:
        return f"?{urlencode({field: value for field, value in vars(self).items() if value})}"
