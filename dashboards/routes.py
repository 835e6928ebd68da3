"""The addresses of the pages. Each carries all it needs, so that a link can be kept and passed on."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlencode


@dataclass(frozen=True)
class StudiesRoute:
    """The list of studies."""

    path: str = "/"


@dataclass(frozen=True)
class StudyRoute:
    """A study."""

    name: str

    @property
    def path(self) -> str:
        return f"/study/{quote(self.name, safe='')}"


@dataclass(frozen=True)
class TrialRoute:
    """A trial of a study."""

    name: str
    number: int

    @property
    def path(self) -> str:
        return f"{StudyRoute(self.name).path}/trial/{self.number}"


Route = StudiesRoute | StudyRoute | TrialRoute


def route(path: str | None) -> Route | None:
    """Return the page at `path`, None if there is none."""
    parts = [unquote(part) for part in (path or "/").split("/") if part]
    match parts:
        case []:
            return StudiesRoute()
        case ["study", name]:
            return StudyRoute(name)
        case ["study", name, "trial", number] if number.isascii() and number.isdigit():
            return TrialRoute(name, int(number))
    return None


@dataclass(frozen=True)
class Axes:
    """The two metrics in which a front is looked at; the rest of a study page's address."""

    x: str
    y: str

    @classmethod
    def read(cls, search: str | None, metrics: Sequence[str]) -> "Axes":
        """Return the axes in the query part of an address; what is missing or unknown gets its default.

        By default the first objective goes up the page and the second along it.
        """
        asked = parse_qs((search or "").lstrip("?"))
        default = cls(x=metrics[1] if len(metrics) > 1 else metrics[0], y=metrics[0])
        x, y = asked.get("x", [""])[0], asked.get("y", [""])[0]
        return cls(x if x in metrics else default.x, y if y in metrics else default.y)

    @property
    def search(self) -> str:
        return f"?{urlencode({'x': self.x, 'y': self.y})}"
