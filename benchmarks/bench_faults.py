"""Is anything lost when coordinators, workers, nodes, networks, disks, databases and clocks fail?

Each run is a study of 32 short trials on a Ray cluster of two nodes, over PostgreSQL or SQLite, struck by one
to three faults at random moments (see `benchmarks.faults`). Whatever happens, a supervisor starts the
coordinator again when it has ended. All the while and in the end: every trial once completed is still there,
unchanged; each was completed once, with its own figures; the budget is met exactly; nothing is stuck. In runs
of even seeds news is told in the order of trials, and the search must have tried the very same candidates and
found the same front as without faults. Seeded; the moments depend on the machine's speed.

    python -m benchmarks.bench_faults [--runs 200] [--minutes 90] [--ledger FILE] [--part 0/2]
"""

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.campaign import WORKERS, Campaign
from benchmarks.faults.databases import Database, File, Server
from benchmarks.faults.injecting import FAULTS
from benchmarks.faults.nodes import Nodes

LEDGER = Path(__file__).with_name("data") / "faults.jsonl"


MINUTES = "HPO_CHAOS_MINUTES"
"""Environment variable: for how long to go on; 90 without it."""


def run(runs: int, minutes: float, ledger: Path, part: tuple[int, int] = (0, 1)) -> None:
    """Add the runs that a ledger lacks, until there are so many or the time is over; one `part` of several,
    each with a cluster and databases of its own."""
    known = {entry["seed"] for entry in read(ledger)}
    end = time.monotonic() + 60 * minutes
    nodes = Nodes(WORKERS, part[0])
    databases: tuple[Database, ...] = ()
    try:
        nodes.start()
        databases = (File(), Server())
        for seed in range(runs):
            if seed in known or seed // 4 % part[1] != part[0] or time.monotonic() > end:
                continue
            nodes.mend()
            told = Campaign(seed, nodes, databases[seed // 2 % 2]).run()
            with ledger.open("a") as file:
                file.write(json.dumps(told.to_mapping()) + "\n")
            sys.stderr.write(f"{seed}: {', '.join(told.faults)}: {told.wrong or 'nothing lost'}\n")
    finally:
        nodes.stop()
        for database in databases:
            database.close()


def read(ledger: Path) -> list[dict[str, Any]]:
    if not ledger.exists():
        return []
    return [json.loads(line) for line in ledger.read_text().splitlines()]


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return how often each fault struck and what came of it; a run counts for each of its faults."""
    struck = Counter(name for entry in entries for name in entry["faults"])
    lines = ["| fault | runs | something wrong | settled after, s, median and worst |", "|---|---|---|---|"]
    for name in FAULTS:
        mine = [entry for entry in entries if name in entry["faults"]]
        after = sorted(entry["settled_s"] for entry in mine)
        told = f"{after[len(after) // 2]:.1f}, {after[-1]:.1f}" if after else "-"
        lines.append(f"| {name} | {struck[name]} | {sum(bool(e['wrong']) for e in mine)} | {told} |")
    wrong = [entry for entry in entries if entry["wrong"]]
    total = {key: sum(entry[key] for entry in entries) for key in ("coordinators", "requeued", "adopted")}
    again = sorted(s for e in entries if "clock jumped" not in e["faults"] for s in e["again_s"])
    if again:
        median, most = again[len(again) // 2], again[int(0.9 * len(again))]
        lines += [
            "",
            f"{len(again)} trials lost their worker; they ran again {median:.1f} s (median), "
            f"{most:.1f} s (90 %) or {again[-1]:.1f} s (worst) after that was noticed, a restart of the "
            "coordinator or the start of another worker included.",
        ]
    lines += [
        "",
        f"{len(entries)} runs, seeds {min(e['seed'] for e in entries)} to {max(e['seed'] for e in entries)}, "
        f"{sum(e['in_order'] for e in entries)} of them in order; {total['coordinators']} coordinators, "
        f"{total['requeued']} trials run again, {total['adopted']} adopted from journals; "
        "runs with anything lost, counted twice, stuck, beyond the budget or on another front: "
        f"{len(wrong)}.",
    ]
    return "\n".join([*lines, *(f"- seed {e['seed']}: {e['wrong'][0].splitlines()[0]}" for e in wrong)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float(os.environ.get(MINUTES, "90")))
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    parser.add_argument("--part", default="0/1", help="the first of two that share the work: 0/2")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if anything was wrong")
    given = parser.parse_args(None if __name__ == "__main__" else [])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no cluster behind
    which, of = map(int, given.part.split("/"))
    run(given.runs, given.minutes, given.ledger, (which, of))
    entries = sorted(read(given.ledger), key=lambda entry: int(entry["seed"]))
    print(table(entries))
    if given.strict and (not entries or any(entry["wrong"] for entry in entries)):
        sys.exit(1)


if __name__ == "__main__":
    main()
