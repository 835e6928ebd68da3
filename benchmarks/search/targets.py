"""Ours against the best peer: what was wanted, what was found, and whether that is enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.search import table
from benchmarks.search.race import Run

Searchers = Mapping[str, Sequence[Run]]

TRIALS = 40
"""Trials in which ours wants to be where the best peer is at the end."""
SECONDS = 0.25
"""Share of that peer's seconds in which it wants to be there."""
REGRET = 0.5
"""Share of that peer's regret that it wants to be left with at the end."""
CLASSIC = 0.98
"""Share of the best GP peer's hypervolume that it wants to reach where little is known beside the space."""
LOST = 0.02
"""Share of front members that stopping trials may cost."""


@dataclass(frozen=True)
class Target:
    """One thing that was wanted."""

    name: str
    wanted: str
    found: str
    met: bool | None
    """None where the races that would tell have not been run."""

    @property
    def row(self) -> list[str]:
        verdict = {True: "met", False: "missed", None: "not known"}[self.met]
        return [self.name, self.wanted, self.found, verdict]


@dataclass(frozen=True)
class Best:
    """The searcher with the highest median after so many trials."""

    name: str
    median: float
    seeds: int
    seconds: float
    """The median over its runs of what so many trials took."""

    def __str__(self) -> str:
        return f"{self.name} ({self.seeds} seeds)"


def best(searchers: Searchers, trials: int) -> Best | None:
    """Return the best of some searchers among those that went for so many trials; None if none did."""
    found = []
    for name, runs in searchers.items():
        long = [run for run in runs if run.key.trials >= trials]
        spread = table.spread_at(long, trials)
        if spread is not None:
            seconds = float(np.median([_seconds(run, trials) for run in long]))
            found.append(Best(name, spread.median, len(long), seconds))
    return max(found, key=lambda one: one.median, default=None)


def _seconds(run: Run, trials: int) -> float:
    return run.seconds[:trials][-1] if run.seconds else 0.0


def speed(ours: Sequence[Run], stopping: Sequence[Run], peers: Searchers, trials: int) -> list[Target]:
    """Return whether ours is where the best peer is after `trials`, in how many trials and seconds, and
    how far each still is from the best known.

    `stopping` are runs of ours that stopped trials.
    """
    peer = best(peers, trials)
    names = [
        f"trials to the best peer's median after {trials}",
        "seconds to it without stopping, as a share of the peer's",
        "seconds to it with stopping, as a share of the peer's",
        f"regret after {trials} trials, as a share of the peer's",
    ]
    wanted = [f"at most {TRIALS}", *[f"at most {SECONDS:.0%}"] * 2, f"at most {REGRET:g}"]
    if peer is None:
        return [Target(*pair, "no peer has gone so far", None) for pair in zip(names, wanted, strict=True)]
    reached = [table.reached(runs, peer.median) if runs else None for runs in (ours, stopping)]
    found = [
        _trials(reached[0], peer),
        *(_share(place, peer) for place in reached),
        _regret(ours, peer, trials),
    ]
    return [Target(name, least, *result) for name, least, result in zip(names, wanted, found, strict=True)]


Result = tuple[str, bool | None]
_NOT_RUN: Result = ("ours has not been run", None)


def _trials(reached: table.Reached | None, peer: Best) -> Result:
    if reached is None:
        return _NOT_RUN
    if reached.trials is None:
        return f"never there: {peer} comes to {peer.median:.4f}", False
    return f"{reached.trials}; {peer} comes to {peer.median:.4f}", reached.trials <= TRIALS


def _share(reached: table.Reached | None, peer: Best) -> Result:
    if reached is None:
        return _NOT_RUN
    if reached.seconds is None:
        return "never there", False
    share = reached.seconds / peer.seconds
    return f"{share:.1%} ({reached.seconds:.4g} s of {peer.seconds:.4g} s)", share <= SECONDS


def _regret(ours: Sequence[Run], peer: Best, trials: int) -> Result:
    spread = table.spread_at(ours, trials)
    if spread is None:
        return _NOT_RUN
    mine, theirs = 1 - spread.median, 1 - peer.median
    about = f"({mine:.3g} against {theirs:.3g})"
    # Best known fronts can be beaten, and then there is nothing to be a share of.
    if theirs <= 0:
        return f"no share {about}", mine <= 0
    return f"{mine / theirs:.2f} {about}", mine / theirs <= REGRET


def level(problem: str, ours: Sequence[Run], peers: Searchers, trials: int) -> Target:
    """Return whether ours is where the best of some peers is, on a problem of which little is known."""
    name, wanted = (
        f"{problem}: median after {trials} trials, as a share of the best GP peer's",
        f"at least {CLASSIC:g}",
    )
    peer, spread = best(peers, trials), table.spread_at(ours, trials)
    if peer is None:
        return Target(name, wanted, "no such peer has been run", None)
    if spread is None:
        return Target(name, wanted, *_NOT_RUN)
    share = spread.median / peer.median
    return Target(
        name, wanted, f"{share:.3f} ({spread.median:.4f}; {peer}: {peer.median:.4f})", share >= CLASSIC
    )


def markdown(targets: Sequence[Target]) -> str:
    """Return a sentence that counts, and a table."""
    met = sum(target.met is True for target in targets)
    missed = [target.name for target in targets if target.met is False]
    open_ = sum(target.met is None for target in targets)
    words = [f"{met} of {len(targets)} targets are met"]
    words += [f"missed: {'; '.join(missed)}"] if missed else []
    words += [f"{open_} cannot be told, for want of races"] if open_ else []
    head = ["target", "wanted", "found", ""]
    return (
        f"{'. '.join(w[0].upper() + w[1:] for w in words)}.\n\n{table.grid(head, [t.row for t in targets])}"
    )
