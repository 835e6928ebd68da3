"""What the page of a comparison is asked to show; all of it stands in its address."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args
from urllib.parse import parse_qs, urlencode

from dashboards.comparison import Kind
from dashboards.routes import CompareRoute

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class CompareView:
    """Studies, axes, cut and bands, as the address has them; what it leaves out is empty."""

    names: tuple[str, ...] = ()
    x: str = ""
    y: str = ""
    cut: Kind = "all"
    at: float | None = None
    """Worker hours or trials that all are cut to; None for the most that all have."""
    seeds: bool = False
    """They are runs of one thing."""

    @classmethod
    def read(cls, search: str | None) -> "CompareView":
        """Return what the query part of an address asks for; what makes no sense is as if left out."""
        asked = parse_qs((search or "").lstrip("?"))

        def first(key: str) -> str:
            return asked.get(key, [""])[0]

        kind: Kind = next((kind for kind in KINDS if kind == first("cut")), "all")
        return cls(
            names=CompareRoute.names(search),
            x=first("x"),
            y=first("y"),
            cut=kind,
            at=_number(first("at")),
            seeds=first("seeds") == "1",
        )

    @property
    def search(self) -> str:
        pairs: list[tuple[str, str]] = [("study", name) for name in self.names]
        pairs += [(key, value) for key, value in (("x", self.x), ("y", self.y)) if value]
        if self.cut != "all":
            pairs.append(("cut", self.cut))
            pairs += [] if self.at is None else [("at", f"{self.at:.6g}")]
        return f"?{urlencode([*pairs, *([('seeds', '1')] if self.seeds else [])])}"

    def axes(self, metrics: Sequence[str]) -> tuple[str, str]:
        """Return x and y; one that is no metric gets its default: the first goes up, the second along."""
        along = self.x if self.x in metrics else metrics[1 if len(metrics) > 1 else 0]
        up = self.y if self.y in metrics else metrics[0]
        return along, up


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
