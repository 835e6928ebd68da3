"""The second stage of a search: who is moved next, and which moves are worth measuring."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hpo.metric import Source
from hpo.problem import Preview, Problem
from hpo.search.descent import Descent, origin, parent
from hpo.search.refining import PATIENCE, promotion, refined
from hpo.space import Candidate, Float, SearchSpace
from hpo.trial import Limit, Measurement, Objective, StageTime, Trial

SPACE = SearchSpace.of([("keep", Float(low=0.0, high=1.0))])


def preview(candidates: Sequence[Candidate]) -> Preview:
    keeps = np.array([[float(c.values.get("keep", 1.0))] for c in candidates]).reshape(-1, 1)
    return Preview(100 * keeps, keeps, tuple(str(c) for c in candidates), ("",) * len(candidates))


def near(candidate: Candidate, count: int, seed: int) -> list[Candidate]:
    """Moves outside the space that cost the same: 1,000 of each candidate."""
    fold = np.random.default_rng(seed).integers(1000, size=count)
    before = str(candidate.values.get("shift", ""))
    return [Candidate.of({**candidate.values, "shift": f"{before}/{n}"}) for n in fold.tolist()]


PROBLEM = Problem(
    SPACE,
    (Objective(metric="perplexity", limit=Limit(value=10.0)), Objective(metric="weight_memory")),
    ("weight_memory",),
    preview,
    ("kl", "later"),
    moves=near,
)


def at(keep: float, shift: str = "") -> Candidate:
    return Candidate.of({"keep": keep, **({"shift": shift} if shift else {})})


def looked(number: int, candidate: Candidate, kl: float | None, of: int | None = None) -> Trial:
    name = "bayesian" if of is None else origin(of)
    trial = Trial(number, candidate, name, str(candidate)).started("worker", 0.0)
    return trial.advanced(StageTime("screen", 1.0), notes={} if kl is None else {"kl": kl})


def done(
    number: int, candidate: Candidate, perplexity: float, kl: float | None, of: int | None = None
) -> Trial:
    measured = (
        Measurement("perplexity", perplexity, "ppl", Source.MEASURED),
        Measurement.exact("weight_memory", 100 * float(candidate.values.get("keep", 1.0))),
    )
    return replace(looked(number, candidate, kl, of), measurements=measured).completed(1.0)


def stopped(number: int, shift: str, kl: float, of: int, keep: float = 0.5) -> Trial:
    return looked(number, at(keep, shift), kl, of).stopped("told to", 1.0)


def dense() -> Trial:
    return replace(done(0, Candidate(), 1.0, None), origin="anchor:dense")


def front() -> list[Trial]:
    """Return a dense model, three trials on the front, and one that is not."""
    # Alone they dominate 0.5 x 10, 7 x 60 and 1 x 10 of a box of 10 x 110: the second adds most.
    return [
        dense(),
        done(1, at(0.9), 1.5, 0.1),
        done(2, at(0.3), 2.0, 0.2),
        done(3, at(0.2), 9.0, 0.9),
        done(4, at(0.95), 5.0, 0.05),
    ]


def test_the_origin_of_a_move_names_its_parent() -> None:
    assert origin(12) == "refine:12"
    assert parent(looked(13, at(0.5), None, of=12)) == 12
    assert parent(done(1, at(0.5), 1.0, None)) is None
    assert parent(replace(dense(), origin="refine:")) is None


def test_members_take_turns_the_one_that_adds_most_first() -> None:
    moved = refined(PROBLEM, front(), 7, seed=0)
    assert [name for name, _, _ in moved] == [origin(n) for n in (2, 3, 1, 2, 3, 1, 2)]


def test_moves_are_new_plans_of_their_parent() -> None:
    moved = refined(PROBLEM, front(), 9, seed=0)
    plans = [plan for _, _, plan in moved]
    assert len({*plans, *(trial.plan_hash for trial in front())}) == len(plans) + len(front())
    for name, candidate, plan in moved:
        assert candidate.values["keep"] == front()[int(name.removeprefix("refine:"))].candidate.values["keep"]
        assert plan == str(candidate)


def test_the_same_history_and_seed_give_the_same_moves_however_many_are_asked_at_once() -> None:
    history = front()
    one = []
    for _ in range(4):
        (move,) = refined(PROBLEM, history, 1, seed=3)
        one.append(move)
        history = [*history, Trial(len(history), move[1], move[0], move[2])]
    assert refined(PROBLEM, front(), 4, seed=3) == one
    assert refined(PROBLEM, front(), 4, seed=4) != one


def test_who_has_shown_no_first_look_is_not_moved() -> None:
    history = [dense(), done(1, at(0.5), 2.0, None)]
    assert refined(PROBLEM, history, 2, seed=0) == []


def test_a_problem_without_moves_has_none() -> None:
    assert refined(replace(PROBLEM, moves=None), front(), 2, seed=0) == []


def test_what_breaks_an_exact_limit_is_not_proposed() -> None:
    small = Objective(metric="weight_memory", limit=Limit(value=20.0))
    problem = replace(PROBLEM, objectives=(PROBLEM.objectives[0], small))
    grown = replace(problem, moves=lambda c, count, seed: [at(0.21, "/1")])
    assert [name for name, _, _ in refined(problem, front(), 1, seed=0)] == [origin(3)]
    assert refined(grown, front(), 1, seed=0) == []


def test_a_family_goes_on_from_where_it_looks_best() -> None:
    history = [dense(), done(1, at(0.5), 2.0, 0.5)]
    history.append(stopped(2, "a", 0.6, of=1))
    assert refined(PROBLEM, history, 1, seed=0)[0][0] == origin(1)
    history.append(stopped(3, "b", 0.495, of=1))  # better, not enough to be measured
    assert refined(PROBLEM, history, 1, seed=0)[0][0] == origin(3)
    history.append(done(4, at(0.5, "c"), 1.9, 0.4, of=3))
    assert refined(PROBLEM, history, 1, seed=0)[0][0] == origin(4)


def test_a_step_from_a_trial_that_is_beaten_is_left() -> None:
    history = [dense(), done(1, at(0.5), 2.0, 0.5), stopped(2, "a", 0.499, of=1), done(3, at(0.4), 1.5, 0.7)]
    assert refined(PROBLEM, history, 1, seed=0)[0][0] == origin(3)


def test_a_family_of_several_on_the_front_has_one_turn() -> None:
    history = [*front(), done(5, at(0.31, "a"), 1.9, 0.1, of=2)]
    assert [name for name, _, _ in refined(PROBLEM, history, 3, seed=0)] == [origin(n) for n in (3, 1, 5)]


def test_a_family_is_left_after_as_many_moves_in_vain() -> None:
    history = [dense(), done(1, at(0.5), 2.0, 0.5)]
    history += [stopped(2 + k, str(k), 0.6, of=1) for k in range(PATIENCE - 1)]
    assert len(refined(PROBLEM, history, 1, seed=0)) == 1
    history.append(stopped(1 + PATIENCE, "last", 0.6, of=1))
    assert refined(PROBLEM, history, 1, seed=0) == []
    history[-1] = stopped(1 + PATIENCE, "last", 0.499, of=1)
    assert len(refined(PROBLEM, history, 1, seed=0)) == 1


@pytest.mark.parametrize("kl", [0.5, 0.7])
def test_a_move_that_looks_no_better_is_not_worth_more(kl: float) -> None:
    history = [dense(), done(1, at(0.5), 2.0, 0.5), looked(2, at(0.5, "a"), kl, of=1)]
    assert promotion(PROBLEM, history, history[-1]) == f"its kl of {kl} is not below the 0.5 of trial 1"


def test_a_move_goes_on_once_its_family_has_gained_two_per_cent_since_it_was_measured() -> None:
    history = [dense(), done(1, at(0.5), 2.0, 0.5), stopped(2, "a", 0.495, of=1)]
    short, far = looked(3, at(0.5, "b"), 0.491, of=2), looked(3, at(0.5, "b"), 0.489, of=2)
    assert "below that of trial 2, but not yet 2% below the 0.5 of trial 1" in promotion(
        PROBLEM, history, short
    )
    assert promotion(PROBLEM, history, far) == ""
    # Measured, it is what the next is held against.
    measured = [*history, done(3, at(0.5, "b"), 1.9, 0.489, of=2)]
    assert "not yet 2% below the 0.489 of trial 3" in promotion(
        PROBLEM, measured, looked(4, at(0.5), 0.48, of=3)
    )
    assert promotion(PROBLEM, measured, looked(4, at(0.5), 0.479, of=3)) == ""


@pytest.mark.parametrize(
    "trial",
    [
        looked(2, at(0.5, "a"), 0.9),
        looked(2, at(0.5, "a"), None, of=1),
        looked(2, at(0.5, "a"), 0.9, of=0),
        looked(2, at(0.5, "a"), 0.9, of=7),
    ],
    ids=["of the search proper", "nothing shown", "parent has shown nothing", "no such parent"],
)
def test_what_cannot_be_compared_goes_on(trial: Trial) -> None:
    assert promotion(PROBLEM, [dense(), done(1, at(0.5), 2.0, 0.5), trial], trial) == ""


def test_a_family_is_all_that_descends_from_one_trial() -> None:
    history = [dense(), done(1, at(0.5), 2.0, 0.5), stopped(2, "a", 0.4, of=1), stopped(3, "b", 0.3, of=2)]
    descent = Descent(PROBLEM.objectives, history, PROBLEM.tiers)
    assert [descent.root(trial) for trial in history] == [0, 1, 1, 1]
    assert descent.measured(history[3]) == history[1]
    assert descent.improves(history[3])
    assert not descent.improves(history[1])
