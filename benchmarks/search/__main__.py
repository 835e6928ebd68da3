"""Compare searchers on problems, over seeds, and print the tables.

    python -m benchmarks.search --problems dtlz2,zdt1 --searchers bayesian,optuna/nsga2 --seeds 3 --out FILE

Runs that FILE holds already are not run again. A peer whose package is missing is left out.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.search import problems, searcher, table
from benchmarks.search.comparison import compare
from benchmarks.search.ledger import Ledger
from benchmarks.search.race import Key
from hpo.errors import HpoError


def present(names: Sequence[str]) -> Iterator[str]:
    """Yield the searchers that can take part here; say why of each that cannot."""
    for name in names:
        if reason := searcher.missing(name):
            sys.stderr.write(f"{name} is left out: {reason}\n")
        else:
            yield name


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.search", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--problems", default="dtlz2", help="names, by commas: " + ", ".join(problems.PROBLEMS)
    )
    parser.add_argument(
        "--searchers", default="sobol", help="names, by commas: " + ", ".join(searcher.names())
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--trials", type=int, default=40, help="anchors not counted")
    parser.add_argument("--initial", type=int, default=8, help="candidates before a model is trusted")
    parser.add_argument(
        "--stopping", action="store_true", help="stop trials on what they show before they are measured"
    )
    parser.add_argument("--processes", type=int, default=1, choices=(0, 1, 2), help="0: in this one")
    parser.add_argument("--out", type=Path, required=True, help="runs, one JSON object a line")
    given = parser.parse_args(arguments)
    names = list(present(given.searchers.split(",")))
    amount = given.trials, given.initial, given.stopping
    keys = [
        Key.now(problems.load(problem).name, name, seed, *amount)
        for problem in given.problems.split(",")
        for name in names
        for seed in range(given.seeds)
    ]
    runs = compare(keys, Ledger(given.out), given.processes)
    print(table.markdown(runs))
    if len(runs) < len(keys):
        sys.exit(f"{len(keys) - len(runs)} of {len(keys)} runs broke down")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HpoError as error:
        sys.exit(str(error))
