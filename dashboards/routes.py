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


@dataclass(frozen=True)
class SearchRoute:
    """How the search of a study goes."""

    name: str

    @property
    def path(self) -> str:
        return f"{StudyRoute(self.name).path}/search"


@dataclass(frozen=True)
class WorkersRoute:
    """Who runs what for a study."""

    name: str

    @property
    def path(self) -> str:
        return f"{StudyRoute(self.name).path}/workers"


@dataclass(frozen=True)
class CompareRoute:
    """Studies side by side; which ones stands in the query, ``?study=A&study=B``."""

    path: str = "/compare"

    @staticmethod
    def of(names: Sequence[str]) -> str:
        """Return the address at which these studies are compared."""
        return f"/compare?{urlencode([('study', name) for name in names])}"

    @staticmethod
    def names(search: str | None) -> tuple[str, ...]:
        """Return the studies that the query part of an address names, each once."""
        return tuple(dict.fromkeys(parse_qs((search or "").lstrip("?")).get("study", [])))


Route = StudiesRoute | StudyRoute | TrialRoute | SearchRoute | WorkersRoute | CompareRoute


def route(path: str | None) -> Route | None:
    """Return the page at `path`, None if there is none."""
    parts = [unquote(part) for part in (path or "/").split("/") if part]
    match parts:
        case []:
            return StudiesRoute()
        case ["compare"]:
            return CompareRoute()
        case ["study", name, *rest]:
            return _of_study(name, rest)
    return None


def _of_study(name: str, rest: Sequence[str]) -> Route | None:
    match rest:
        case []:
            return StudyRoute(name)
        case ["search"]:
            return SearchRoute(name)
        case ["workers"]:
            return WorkersRoute(name)
        case ["trial", number] if number.isascii() and number.isdigit():
            return TrialRoute(name, int(number))
    return None


@dataclass(frozen=True)
class DataRoute:
    """Where the browser gets what is no page: the trials of a study, or a file of them."""

    name: str
    what: str
    """``trials``, or ``download.`` and a kind of file."""

    @property
    def path(self) -> str:
        return f"/data/{quote(self.name, safe='')}/{self.what}"


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
