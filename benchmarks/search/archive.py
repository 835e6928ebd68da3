"""The runs that tables and figures are made from, in one small file that is kept with the code."""

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.search import searcher
from benchmarks.search.race import Key, Run, version
from hpo.errors import HpoError, NotFound

RACES = Path(__file__).parents[1] / "data" / "races.jsonl.gz"

_DIGITS, _FEW = 5, 3
"""Digits of what is found, and of CPU seconds, which no two runs agree on."""

Sort = tuple[str, str, bool, int, int, int]


@dataclass(frozen=True)
class Session:
    """When and where runs were made."""

    date: str
    about: str
    """The machine and the versions that may matter."""


@dataclass(frozen=True)
class Archive:
    """Runs and the sessions they were made in: one run for each race, whatever the searcher's version.

    Raises:
        ValueError: there is not one session a run, or two runs are of one race.
    """

    runs: tuple[Run, ...] = ()
    sessions: tuple[Session, ...] = ()
    """Of each run."""

    def __post_init__(self) -> None:
        places = {_place(run.key) for run in self.runs}
        if not len(places) == len(self.runs) == len(self.sessions):
            counts = f"{len(self.runs)} runs of {len(places)} races, {len(self.sessions)} sessions"
            raise ValueError(f"{counts}; there must be as many of each")

    @classmethod
    def read(cls, path: Path) -> "Archive":
        """Return what a file holds; nothing where there is none.

        Raises:
            HpoError: the file is no archive.
        """
        if not path.exists():
            return cls()
        try:
            head, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
            sessions = [Session(**session) for session in json.loads(head)["sessions"]]
            found = [json.loads(line) for line in lines]
            made = tuple(sessions[mapping.pop("session")] for mapping in found)
            return cls(tuple(Run.from_mapping(mapping) for mapping in found), made)
        except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
            hint = "take the file away and run `make bench-search`, which writes it"
            raise HpoError(f"{path} is no archive of races: {error}", hint) from error

    def write(self, path: Path) -> None:
        """Write the file: the same bytes for the same runs, in whatever order they came."""
        sessions = list(self.counts)
        head: dict[str, Any] = {"sessions": [asdict(session) for session in sessions]}
        ordered = sorted(zip(self.runs, self.sessions, strict=True), key=lambda pair: _place(pair[0].key))
        lines = [{**run.to_mapping(), "session": sessions.index(made)} for run, made in ordered]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (head, *lines))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))

    @property
    def counts(self) -> dict[Session, int]:
        """How many runs are of each session, the oldest first."""
        found = Counter(self.sessions)
        return {made: found[made] for made in sorted(found, key=lambda made: (made.date, made.about))}

    def joined(self, runs: Iterable[Run], session: Session) -> "Archive":
        """Return the archive with these runs in place of those of the same races, rounded as it keeps them.

        What it holds already, to the last digit kept, is not of this session.
        """
        pairs = zip(self.runs, self.sessions, strict=True)
        found = {_place(run.key): (run, made) for run, made in pairs}
        for run in map(rounded, runs):
            old = found.get(_place(run.key))
            if old is None or old[0] != run:
                found[_place(run.key)] = run, session
        return Archive(tuple(run for run, _ in found.values()), tuple(made for _, made in found.values()))


def rounded(run: Run) -> Run:
    """Return a run with as many digits as the archive keeps."""

    def short(values: Iterable[float], digits: int = _DIGITS) -> tuple[float, ...]:
        return tuple(float(f"{value:.{digits}g}") for value in values)

    return replace(
        run,
        anchors=short([run.anchors])[0],
        hypervolumes=short(run.hypervolumes),
        seconds=short(run.seconds),
        ask_seconds=short(run.ask_seconds, _FEW),
    )


@dataclass(frozen=True)
class Current:
    """The runs that hold for the code and the packages at hand."""

    runs: tuple[Run, ...]
    stale: int
    """Runs left out: the searcher has another version now, or is no more."""
    unchecked: tuple[str, ...]
    """Searchers whose package is missing here, so that their runs are taken at their word."""

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Current":
        kinds = [(run.key.problem, run.key.searcher, run.key.stopping) for run in runs]
        versions = {kind: _version(*kind) for kind in dict.fromkeys(kinds)}
        pairs = zip(runs, kinds, strict=True)
        kept = tuple(run for run, kind in pairs if versions[kind] in (None, run.key.version))
        unchecked = dict.fromkeys(name for (_, name, _), known in versions.items() if known is None)
        return cls(kept, len(runs) - len(kept), tuple(unchecked))


def _version(problem: str, name: str, stopping: bool) -> str | None:
    """Return the present version; empty if there is no such searcher, None if it is missing here."""
    try:
        return None if searcher.missing(name) else version(problem, name, stopping)
    except NotFound:
        return ""


def _place(key: Key) -> Sort:
    """Return which race a run is a run of, whatever the version."""
    return key.problem, key.searcher, key.stopping, key.trials, key.initial, key.seed
