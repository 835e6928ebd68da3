"""Where candidates come from, and which of them may be proposed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.problem import Problem
from hpo.search.generate import children, everything, sobol
from hpo.search.pool import Gate, Pool, fresh
from hpo.search.sobol import SobolSampler, spread
from hpo.space import Candidate, Choice, Float, Int, SearchSpace
from hpo.trial import Objective
from tests.search.problems import Toy, compression, dtlz2, grid, line

SPACE = compression().problem.space


def test_sobol_points_go_on_where_they_were_left() -> None:
    assert sobol(SPACE, 12, seed=3) == sobol(SPACE, 5, seed=3) + sobol(SPACE, 7, seed=3, skip=5)
    assert sobol(SPACE, 12, seed=3) != sobol(SPACE, 12, seed=4)


def test_sixteen_sobol_points_fall_into_sixteen_bins_of_every_parameter() -> None:
    points = sobol(dtlz2().problem.space, 16, seed=1)
    for name in dtlz2().problem.space.parameters:
        assert len({int(16 * float(point.values[name])) for point in points}) == 16


def test_everything_is_every_candidate_once() -> None:
    space = SearchSpace.of(
        [
            ("how", Choice(choices=("a", "b", "c"))),
            ("step", Float(low=0.0, high=1.0, step=0.5, when={"how": ("a",)})),
            ("size", Int(low=1, high=9, log=True, when={"how": ("b",)})),
        ]
    )
    found = list(everything(space))
    assert len(found) == len(set(found)) == 3 + 9 + 1
    assert all(space.contains(candidate) for candidate in found)
    with pytest.raises(ValueError, match="continuous"):
        list(everything(SPACE))


@given(st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_children_lie_in_the_space_and_differ_from_their_parents(seed: int, parents: int) -> None:
    rng = np.random.default_rng(seed)
    known = sobol(SPACE, parents, seed=seed)
    young = children(SPACE, known, 32, rng)
    assert len(young) == 32
    assert all(SPACE.contains(candidate) for candidate in young)
    assert len(set(young) - set(known)) > 6  # the worst of 3,000 seeds gave 13


def test_children_keep_most_of_a_parent_and_reach_other_branches() -> None:
    rng = np.random.default_rng(0)
    parent = Candidate.of(
        {"factorise": "svd", "factorise.keep_ratio": 0.5, "factorise.temperature": 1.0, "heal": "none"}
    )
    young = children(SPACE, [parent], 200, rng)
    same = [sum(candidate.values.get(n) == v for n, v in parent.items) for candidate in young]
    assert 1.5 < np.mean(same) < 3
    assert {candidate.values["factorise"] for candidate in young} == {"svd", "mpo"}
    assert children(SPACE, [], 8, rng) == []


def known(toy: Toy, *candidates: Candidate) -> Gate:
    return Gate.of(toy.problem, [toy.trial(i, candidate) for i, candidate in enumerate(candidates)])


def svd(keep: float) -> Candidate:
    return Candidate.of(
        {"factorise": "svd", "factorise.keep_ratio": keep, "factorise.temperature": 1.0, "heal": "none"}
    )


def test_the_gate_is_closed_to_known_plans_and_opens_once_for_each_new_one() -> None:
    toy = compression()
    twins = [svd(0.5), svd(0.5001), svd(0.6), svd(0.6001)]  # rounded to one rank each
    admitted = known(toy, svd(0.5002)).admit(twins)
    assert admitted.candidates == (svd(0.6),)
    assert len(known(toy, svd(0.5002)).without(admitted).admit(twins)) == 0


def test_the_gate_is_closed_to_refused_candidates_and_broken_exact_limits() -> None:
    toy = compression()
    refused = Candidate.of({"factorise": "mpo", "factorise.bond": 128, "factorise.sites": 3, "heal": "none"})
    assert toy.problem.preview([refused]).refusals[0]
    gate = Gate.of(toy.problem, toy.start())  # with the dense model known, memory is limited to 0.95 of it
    heavy = Candidate.of({"factorise": "mpo", "factorise.bond": 62, "factorise.sites": 2, "heal": "none"})
    assert gate.admit([refused, heavy, svd(0.5)]).candidates == (svd(0.5),)
    # 2 x 128 x 62 parameters a layer of 128 x 128, over 0.95
    assert gate.excess(heavy) == pytest.approx(62 / 64 / 0.95 - 1)
    assert gate.excess(svd(0.5)) == 0
    assert gate.excess(refused) == np.inf


def test_a_plan_that_the_history_did_not_note_is_looked_up() -> None:
    toy = compression()
    trial = toy.trial(0, svd(0.5))
    unnamed = type(trial)(**{**vars(trial), "plan_hash": ""})
    assert len(Gate.of(toy.problem, [unnamed]).admit([svd(0.5001)])) == 0


def test_fresh_candidates_come_in_sobol_order_and_end_with_the_space() -> None:
    toy = dtlz2()
    gate = known(toy, *sobol(toy.problem.space, 100, seed=2))
    points = sobol(toy.problem.space, 1000, seed=2)[100:]
    inside = [point for point in points if gate.excess(point) == 0]
    assert list(fresh(gate, 5, seed=2).candidates[:5]) == inside[:5]
    small = grid()
    assert len(fresh(known(small), 100, seed=0)) == 9
    assert len(fresh(known(small, *everything(small.problem.space)), 1, seed=0)) == 0


def test_a_pool_joined_to_an_empty_one_is_itself() -> None:
    toy = dtlz2()
    pool = Pool.of(toy.problem, sobol(toy.problem.space, 3, seed=0))
    empty = pool.take([])
    assert pool.joined(empty) is pool
    assert empty.joined(pool) is pool
    assert pool.joined(pool).exact.shape == (6, 2)


def test_asked_one_by_one_or_at_once_sobol_is_one_sequence() -> None:
    toy = dtlz2()
    one_by_one = [t.candidate for t in toy.search(SobolSampler(), 6, seed=5)]
    assert one_by_one == spread(toy.problem, [], 6, seed=5)


def test_every_branch_gets_its_turn() -> None:
    space = SearchSpace.of(
        [("how", Choice(choices=tuple("abcdefg")))]
        + [(f"how.{c}", Float(low=0.0, high=1.0, when={"how": (c,)})) for c in "abcdefg"]
    )
    objectives = (Objective(metric="perplexity"),)
    toy = line(("perplexity",), ())
    problem = Problem(space, objectives, (), toy.problem.preview)
    visits = Counter(candidate.values["how"] for candidate in spread(problem, [], 14, seed=0))
    assert set(visits.values()) == {2}
