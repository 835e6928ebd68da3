"""The second stage of a search: moves around members of the front, which a layer at a time cost no more.

After EvoPress (Sieberling et al. 2024, arXiv:2410.14649): moves are drawn at random, the divergence from the
dense model on little text says which is better, and the better one is moved on. A move that looks worse ends
after that look; what of the others is measured says `promotion`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hpo.problem import Problem
from hpo.search.descent import Descent, origin
from hpo.search.pool import Gate
from hpo.space import Candidate
from hpo.trial import Trial, TrialState

PROMOTED = 0.02
"""Share by which a move's first look must be below that of the last measured trial it descends from for it to
be healed and measured. What gains less is moved on until it has come so far."""

PATIENCE = 16
"""Moves of a family in a row, none of which looks better, after which it is left as it is."""

_DRAWN = 4
"""Moves drawn from a trial, of which the first with a new plan is proposed."""

Move = tuple[str, Candidate, str]
"""Origin, candidate, plan hash."""


def refined(problem: Problem, history: Sequence[Trial], count: int, seed: int) -> list[Move]:
    """Return up to `count` moves with new plans, within every exact limit; none where nothing can be moved.

    Families with a member on the front take turns, the one with the fewest moves first, and of equals the one
    whose members add most to the hypervolume. Each is moved from where it looks best: a member on the front,
    or one stopped on the way from there. Trials that have shown no first look are not moved, and a family is
    left as it is once `PATIENCE` moves in a row looked no better. The same history and seed give the same
    moves.
    """
    found: list[Move] = []
    trials = list(history)
    while len(found) < count and (move := _next(problem, trials, seed)) is not None:
        found.append(move)
        trials.append(Trial(len(trials), move[1], move[0], move[2]))
    return found


def promotion(problem: Problem, history: Sequence[Trial], trial: Trial) -> str:
    """Return why a moved trial is not worth more than the first look at it, empty if it is to go on.

    A trial of the search proper goes on, and so does one that has shown nothing yet or whose parent has not.
    `history` may hold the trial.
    """
    known = [*(t for t in history if t.number != trial.number), trial]
    descent = Descent(problem.objectives, known, problem.tiers)
    parent = descent.parent(trial)
    if parent is None:
        return ""
    name, mine, theirs = descent.tier, descent.look(trial), descent.look(parent)
    if mine is None or theirs is None:
        return ""
    if mine >= theirs:
        return f"its {name} of {mine:.4g} is not below the {theirs:.4g} of trial {parent.number}"
    measured = descent.measured(parent)
    first = None if measured is None else descent.look(measured)
    if measured is None or first is None or mine <= (1 - PROMOTED) * first:
        return ""
    return (
        f"its {name} of {mine:.4g} is below that of trial {parent.number}, but not yet {PROMOTED:.0%} below "
        f"the {first:.4g} of trial {measured.number}, the last one measured: a step on the way"
    )


@dataclass(frozen=True)
class _Family:
    """A family that may be moved on."""

    start: Trial
    moves: int
    """Made so far, in whatever state."""
    share: float
    """Of the comparison box, that its members alone dominate."""

    @property
    def turn(self) -> tuple[int, float, int]:
        return self.moves, -self.share, self.start.number


def _next(problem: Problem, history: Sequence[Trial], seed: int) -> Move | None:
    if problem.moves is None:
        return None
    gate = Gate.of(problem, history)
    for family in sorted(_families(problem, history), key=lambda family: family.turn):
        drawn = problem.moves(family.start.candidate, _DRAWN, seed + len(history))
        admitted = gate.admit(drawn)
        if len(admitted):
            return origin(family.start.number), admitted.candidates[0], admitted.plans[0]
    return None


def _families(problem: Problem, history: Sequence[Trial]) -> list[_Family]:
    descent = Descent(problem.objectives, history, problem.tiers)
    front = {trial.number: descent.root(trial) for trial in descent.front}
    members: dict[int, list[Trial]] = {}
    moves: dict[int, int] = {}
    vain: dict[int, int] = {}
    for trial in history:
        root = descent.root(trial)
        moves[root] = moves.get(root, 0) + (trial.number != root)
        if descent.look(trial) is not None:
            fruitful = trial.number == root or descent.improves(trial)
            vain[root] = 0 if fruitful else vain.get(root, 0) + 1
        measured = descent.measured(trial)
        if measured is not None and measured.number in front and _stands(descent, trial):
            members.setdefault(root, []).append(trial)
    frame = problem.frame(history)
    found = []
    for root, able in members.items():
        if vain[root] >= PATIENCE:
            continue
        others = [trial for trial in descent.front if front[trial.number] != root]
        share = 0.0
        if frame is not None:
            everyone, rest = problem.losses(descent.front), problem.losses(others)
            share = frame.hypervolume(everyone) - frame.hypervolume(rest)
        start = min(able, key=lambda trial: (descent.look(trial), trial.number))
        found.append(_Family(start, moves[root], share))
    return found


def _stands(descent: Descent, trial: Trial) -> bool:
    """Whether a trial may be moved on from: it has been looked at, and was measured or looked better."""
    if descent.look(trial) is None:
        return False
    return trial.state is TrialState.COMPLETED or (
        trial.state is TrialState.STOPPED and descent.improves(trial)
    )
