"""Run the races of the programme that have not been run yet, keep them, and write tables and figures.

    python -m benchmarks.search.bench [--short] [--fresh] [--take FILE] [--processes 2]

Interrupted, it goes on where it stopped: the runs of a session are in a ledger until they are archived.
"""

import argparse
import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from benchmarks.search import report, searcher
from benchmarks.search.archive import RACES, Archive, Session
from benchmarks.search.comparison import compare
from benchmarks.search.ledger import Ledger
from benchmarks.search.programme import FULL, SHORT, Programme, cpu_seconds
from benchmarks.search.race import Key, Run, version
from hpo.errors import HpoError
from hpo.measure.device import environment

BUILD = Path(__file__).parents[2] / "build" / "bench-search"
"""Of no lasting value: runs under way, and all that the short programme writes."""
PACKAGES = ("torch", "botorch", "optuna", "smac", "ax-platform")


@dataclass(frozen=True)
class Place:
    """Where a programme keeps its runs and writes its report."""

    ledger: Path
    archive: Path
    report: Path
    command: str


PLACES = {
    False: Place(BUILD / "full.jsonl", RACES, report.HOME, "make bench-search"),
    True: Place(
        BUILD / "short.jsonl", BUILD / "short" / "races.jsonl.gz", BUILD / "short", "make bench-search-short"
    ),
}
"""By whether the programme is the short one."""


def about() -> str:
    """Return the machine and the versions that races depend on."""
    found = environment()
    parts = [f"{key} {found[key]}" for key in ("cpu", "cores", "memory", "python")]
    for package in PACKAGES:
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(parts)


def present(programme: Programme) -> list[str]:
    """Return the searchers of a programme that can take part here; say why of each that cannot."""
    found = []
    for name in programme.searchers:
        if reason := searcher.missing(name):
            sys.stderr.write(f"{name} is left out: {reason}\n")
        else:
            found.append(name)
    return found


def wanted(programme: Programme) -> list[Key]:
    """Return the races of a programme that can be run here, the longest first, so that no core waits."""
    here = present(programme)
    some = [(races, tuple(name for name in races.searchers if name in here)) for races in programme.all]
    keys = [key for races, names in some if names for key in replace(races, searchers=names).keys(version)]
    return sorted(keys, key=cpu_seconds, reverse=True)


def run(programme: Programme, place: Place, fresh: bool, taken: Sequence[Path], processes: int) -> int:
    """Run what is wanted and not there yet, write archive and report; return how many broke down.

    Runs of other ledgers are taken in first, also of searchers that are missing here. `fresh`: whatever was
    run before is run again.
    """
    ledger, before = Ledger(place.ledger), Archive.read(place.archive)
    if fresh:
        place.ledger.unlink(missing_ok=True)
    else:
        _fill(ledger, [*_of(taken), *before.runs])
    keys = wanted(programme)
    there = {run.key for run in ledger.runs()}
    left = [key for key in keys if key not in there]
    minutes = sum(map(cpu_seconds, left)) / max(1, processes) / 60
    sys.stderr.write(f"{len(left)} of {len(keys)} runs are left to do, in about {minutes:.0f} minutes\n")
    runs = compare(keys, ledger, processes)
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    others = [found for races in programme.all for found in races.of(_of(taken))]
    after = before.joined([*others, *runs], Session(today, about()))
    after.write(place.archive)
    report.write(report.Report(programme, after), place.report, place.command)
    return len(keys) - len(runs)


def _fill(ledger: Ledger, runs: Sequence[Run]) -> None:
    """Enter the runs that a ledger does not hold."""
    known = {run.key for run in ledger.runs()}
    for found in runs:
        if found.key not in known:
            known.add(found.key)
            ledger.append(found)


def _of(ledgers: Sequence[Path]) -> list[Run]:
    return [found for path in ledgers for found in Ledger(path).runs()]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.search.bench", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--short", action="store_true", help="ten minutes, to see that all of it works")
    parser.add_argument("--fresh", action="store_true", help="run again what has been run")
    parser.add_argument(
        "--take",
        type=Path,
        action="append",
        default=[],
        help="a ledger of this machine, whose runs count as run",
    )
    parser.add_argument("--processes", type=int, default=2, choices=(0, 1, 2), help="0: in this one")
    given = parser.parse_args(arguments)
    if given.fresh and given.take:
        parser.error("--fresh runs everything again, --take spares runs: give one of them")
    programme = SHORT if given.short else FULL
    broken = run(programme, PLACES[given.short], given.fresh, given.take, given.processes)
    if broken:
        sys.exit(f"{broken} runs broke down; the others are kept")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HpoError as error:
        sys.exit(str(error))
