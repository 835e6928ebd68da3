"""What stopping trials saves and what it costs, seed by seed: the same search with and without it."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.search import table
from benchmarks.search.race import Run
from benchmarks.search.targets import LOST, Target


@dataclass(frozen=True)
class Saving:
    """One seed with stopping beside the same without.

    Raises:
        ValueError: the two are not of the same race.
    """

    run: Run
    without: Run

    def __post_init__(self) -> None:
        mine, other = self.run.key, self.without.key
        if (mine.problem, mine.seed, mine.trials) != (other.problem, other.seed, other.trials):
            raise ValueError(f"{mine} is compared with {other}: problem, seed and trials must agree")

    @property
    def seconds(self) -> float:
        """Share of the seconds that stopping saved over as many trials; below 0 where it cost some."""
        return 1 - self.run.seconds[-1] / self.without.seconds[-1]

    @property
    def row(self) -> list[str]:
        run = self.run
        return [
            str(run.key.seed),
            f"{run.stopped} of {len(run.seconds)}",
            f"{self.without.seconds[-1]:.4g} s",
            f"{run.seconds[-1]:.4g} s",
            f"{self.seconds:.1%}",
            f"{run.lost} of {run.front}" if run.front else f"{run.lost}",
            f"{self.without.hypervolumes[-1]:.4f}",
            f"{run.hypervolumes[-1]:.4f}",
        ]


def paired(stopping: Sequence[Run], without: Sequence[Run]) -> list[Saving]:
    """Return each run with stopping beside that of the same seed without, where there is one."""
    plain = {run.key.seed: run for run in without if run.seconds}
    return [Saving(run, plain[run.key.seed]) for run in stopping if run.seconds and run.key.seed in plain]


def lost_share(runs: Sequence[Run]) -> float | None:
    """Return the share of front members that were stopped; None where front members were not counted."""
    if not runs or not all(run.front for run in runs):
        return None
    return sum(run.lost for run in runs) / sum(run.front for run in runs)


def target(runs: Sequence[Run]) -> Target:
    """Return whether stopping loses few enough members of the front."""
    name, wanted = "front members lost by stopping", f"at most {LOST:.0%}"
    share = lost_share(runs)
    if share is None:
        return Target(name, wanted, "not counted", None)
    lost, front = sum(run.lost for run in runs), sum(run.front for run in runs)
    return Target(name, wanted, f"{share:.1%} ({lost} of {front})", share <= LOST)


def markdown(savings: Sequence[Saving]) -> str:
    """Return a row a seed and what they come to together."""
    head = ["seed", "stopped", "seconds without", "with", "saved", "front members lost"]
    head += ["hypervolume without", "with"]
    runs = [saving.run for saving in savings]
    before = sum(saving.without.seconds[-1] for saving in savings)
    after = sum(run.seconds[-1] for run in runs)
    share = lost_share(runs)
    total = [
        "all",
        f"{sum(run.stopped for run in runs)} of {sum(len(run.seconds) for run in runs)}",
        f"{before:.4g} s",
        f"{after:.4g} s",
        f"{1 - after / before:.1%}",
        str(sum(run.lost for run in runs)) if share is None else f"{share:.1%}",
        "",
        "",
    ]
    return table.grid(head, [*(saving.row for saving in savings), total])
