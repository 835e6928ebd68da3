"""Is the genetic algorithm the published one, and does it read its generations off the history?"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hpo.search.generate import sobol
from hpo.search.genetic import Nsga2Sampler, constrained_ranks, crowding_distances, fittest, survivors
from hpo.search.offspring import offspring
from hpo.search.sobol import SobolSampler
from hpo.space import Candidate, Choice, Float, Int, SearchSpace
from hpo.trial import Cause, Limit, Objective, Trial, TrialState
from tests.search.problems import Toy, plain

INF = np.inf


def test_ranks_are_fronts_then_violations() -> None:
    """A and B make the first front, C the second; D is best of all but breaks a limit, E more so."""
    losses = np.array([[1.0, 4.0], [4.0, 1.0], [4.0, 4.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]])
    violation = np.array([0.0, 0.0, 0.0, 0.1, 0.7, 0.1])
    assert constrained_ranks(losses, violation).tolist() == [0, 0, 1, 2, 3, 2]


def test_without_a_feasible_individual_the_least_violation_ranks_first() -> None:
    losses = np.zeros((3, 2))
    assert constrained_ranks(losses, np.array([0.5, 0.25, 2.0])).tolist() == [1, 0, 2]


def test_crowding_is_the_distance_between_neighbours_in_shares_of_the_range() -> None:
    """Five points on a front, ranges 10 and 10: the second one's neighbours are at (0, 10) and (4, 5)."""
    front = np.array([[4.0, 5.0], [0.0, 10.0], [10.0, 0.0], [1.0, 8.0], [7.0, 4.0]])
    expected = [(7 - 1) / 10 + (8 - 4) / 10, INF, INF, (4 - 0) / 10 + (10 - 5) / 10, (10 - 4) / 10 + 5 / 10]
    assert crowding_distances(front) == pytest.approx(expected)


def test_an_objective_that_does_not_vary_crowds_nobody() -> None:
    front = np.array([[1.0, 7.0], [2.0, 7.0], [4.0, 7.0]])
    assert crowding_distances(front) == pytest.approx([INF, 1.0, INF])
    assert crowding_distances(front[:, 1:]).tolist() == [0.0, 0.0, 0.0]


def test_the_fittest_are_whole_fronts_and_the_lonely_of_the_last_one() -> None:
    """Rank 0: row 3. Rank 1: rows 0, 1, 2, 4, of which 1 and 4 are its ends and 2 is lonelier than 0."""
    losses = np.array([[2.0, 9.0], [1.0, 10.0], [5.0, 6.0], [0.5, 0.5], [10.0, 1.0]])
    no_limit = np.full((5, 2), -INF)
    assert fittest(losses, no_limit, 4).tolist() == [3, 1, 4, 2]
    broken = no_limit.copy()
    broken[3, 0] = 0.3  # what was best breaks a limit: it comes behind all others
    assert fittest(losses, broken, 5).tolist() == [1, 4, 2, 0, 3]


def one_number(limit: float | None = None) -> Toy:
    space = SearchSpace.of([("x", Float(low=0.0, high=1.0))])

    def truth(candidate: Candidate) -> dict[str, float]:
        x = float(candidate.values["x"])
        return {"perplexity": 1 + x, "prefill_latency": 2 - x}

    bound = None if limit is None else Limit(value=limit)
    objectives = [Objective(metric="perplexity"), Objective(metric="prefill_latency", limit=bound)]
    return plain(space, objectives[: 1 if limit is None else 2], (), truth)


def tried(toy: Toy, *places: float, first: int = 0) -> list[Trial]:
    return [toy.trial(first + i, Candidate.of({"x": x})) for i, x in enumerate(places)]


def parents(toy: Toy, history: Sequence[Trial], generation: int) -> list[float]:
    """Return the numbers of the parents of a generation of four, the fittest first."""
    found = survivors(toy.problem, history, generation, population=4)
    return [float(candidate.values["x"]) for candidate in found]


def test_a_generation_has_the_best_of_those_before_it_as_parents() -> None:
    """One objective, smallest x best; generations of four by their place in the history."""
    toy = one_number()
    history = tried(toy, 0.9, 0.5, 0.7, 0.3, 0.6, 0.1, 0.8, 0.95, 0.2)
    assert parents(toy, history, 0) == []
    assert parents(toy, history, 1) == [0.3, 0.5, 0.7, 0.9]
    assert parents(toy, history, 2) == [0.1, 0.3, 0.5, 0.6]
    assert parents(toy, history, 3) == [0.1, 0.2, 0.3, 0.5]


def test_the_most_crowded_of_a_full_front_is_lost() -> None:
    """All on one line, so one front: .1 lies between neighbours .25 apart, .25 between ones .2 apart."""
    toy = one_number(limit=9.0)
    history = tried(toy, 0.0, 0.1, 0.25, 0.3, 1.0)
    assert sorted(parents(toy, history, 2)) == [0.0, 0.1, 0.3, 1.0]


def test_anchors_in_the_space_belong_to_the_start_and_do_not_move_generations() -> None:
    toy = one_number()
    anchor = replace(tried(toy, 0.05)[0], origin="anchor:small")
    dense = replace(anchor, candidate=Candidate(), origin="anchor:dense")
    history = [dense, anchor, *tried(toy, 0.9, 0.5, 0.7, 0.3, 0.0, first=2)]
    assert parents(toy, history, 1) == [0.05, 0.3, 0.5, 0.7]


def test_what_failed_is_pending_or_has_no_value_is_no_parent() -> None:
    toy = one_number()
    history = tried(toy, 0.1, 0.2, 0.3, 0.4)
    history[0] = replace(history[0], state=TrialState.FAILED, cause=Cause.OUT_OF_MEMORY, measurements=())
    history[1] = replace(history[1], state=TrialState.RUNNING, measurements=(), finished_at=None)
    history[2] = replace(history[2], measurements=())
    assert parents(toy, history, 1) == [0.4]
    assert parents(toy, history[:3], 1) == []
    assert len(Nsga2Sampler(initial=3).ask(toy.problem, history[:3], 2, seed=0)) == 2


def test_a_late_trial_becomes_a_parent_when_it_ends() -> None:
    toy = one_number()
    history = tried(toy, 0.1, 0.2, 0.3, 0.4, 0.5)
    running = replace(history[0], state=TrialState.RUNNING, measurements=(), finished_at=None)
    assert parents(toy, [running, *history[1:]], 2) == [0.2, 0.3, 0.4, 0.5]
    assert parents(toy, history, 2) == [0.1, 0.2, 0.3, 0.4]


def test_whoever_keeps_the_limit_comes_first_then_who_breaks_it_least() -> None:
    """Latency 2 - x at most 1.5: .1 and .3 break it, .3 less so; .5 and .9 keep it, both on the front."""
    toy = one_number(limit=1.5)
    found = parents(toy, tried(toy, 0.1, 0.9, 0.3, 0.5), 1)
    assert set(found[:2]) == {0.5, 0.9}
    assert found[2:] == [0.3, 0.1]


SPACE = SearchSpace.of(
    [
        ("way", Choice(choices=("left", "right"))),
        ("way.a", Float(low=0.0, high=1.0, when={"way": ("left",)})),
        ("way.b", Int(low=1, high=3, when={"way": ("right",)})),
        ("size", Int(low=1, high=1000, log=True)),
    ]
)


def test_children_lie_in_the_space_and_near_their_parents() -> None:
    couple = [
        Candidate.of({"way": "left", "way.a": 0.40, "size": 100}),
        Candidate.of({"way": "left", "way.a": 0.44, "size": 100}),
    ]
    born = offspring(SPACE, couple, 300, np.random.default_rng(0))
    assert all(SPACE.contains(child) for child in born)
    places = np.array([child.values["way.a"] for child in born if child.values["way"] == "left"], dtype=float)
    assert 0.7 < len(places) / len(born) < 1.0, "the branch seldom turns: one in four, and half of those back"
    assert np.quantile(np.abs(places - 0.42), 0.6) < 0.06
    assert np.abs(places - 0.42).max() > 0.15, "a mutation reaches further"
    assert {1, 2, 3} == {c.values["way.b"] for c in born if c.values["way"] == "right"}


def test_a_child_of_two_branches_takes_the_values_of_the_branch_it_takes() -> None:
    couple = [
        Candidate.of({"way": "left", "way.a": 0.25, "size": 10}),
        Candidate.of({"way": "right", "way.b": 3, "size": 10}),
    ]
    born = offspring(SPACE, couple, 300, np.random.default_rng(1))
    left = [child.values["way.a"] for child in born if child.values["way"] == "left"]
    right = [child.values["way.b"] for child in born if child.values["way"] == "right"]
    assert min(len(left), len(right)) > 60
    assert np.mean(np.isclose(np.array(left, dtype=float), 0.25)) > 0.4
    assert np.mean(np.array(right) == 3) > 0.4


def test_the_better_parent_has_more_children() -> None:
    """Of two drawn with replacement from four, the best is among them in 7 of 16 draws, the worst wins 1."""
    line = SearchSpace.of([("x", Float(low=0.0, high=1.0))])
    four = [Candidate.of({"x": x}) for x in (0.1, 0.4, 0.6, 0.9)]
    born = offspring(line, four, 400, np.random.default_rng(2))
    places = np.array([child.values["x"] for child in born], dtype=float)
    assert (places < 0.25).mean() > 2 * (places > 0.75).mean()


def test_nothing_comes_of_no_parents() -> None:
    assert offspring(SPACE, [], 5, np.random.default_rng(0)) == []


def test_it_finds_a_larger_front_than_quasi_random_search() -> None:
    """ZDT1 (Zitzler, Deb and Thiele 2000) in eight dimensions: the front is where all but the first are 0."""
    names = [f"x{i}" for i in range(8)]

    def truth(candidate: Candidate) -> dict[str, float]:
        first, *rest = (float(candidate.values[name]) for name in names)
        g = 1 + 9 * sum(rest) / len(rest)
        return {"perplexity": first, "prefill_latency": g * (1 - (first / g) ** 0.5)}

    space = SearchSpace.of((name, Float(low=0.0, high=1.0)) for name in names)
    limits = {"perplexity": 1.1, "prefill_latency": 11.0}
    toy = plain(space, [Objective(metric=m, limit=Limit(value=v)) for m, v in limits.items()], (), truth)
    bred = [toy.hypervolume(toy.search(Nsga2Sampler(), 120, seed, batch=4)) for seed in range(3)]
    blind = [toy.hypervolume(toy.search(SobolSampler(), 120, seed, batch=4)) for seed in range(3)]
    assert np.median(bred) > 1.05 * np.median(blind)


def test_a_batch_over_the_end_of_a_generation_is_bred_from_both() -> None:
    toy = one_number()
    history = [toy.trial(i, c) for i, c in enumerate(sobol(toy.problem.space, 7, seed=0))]
    asked = Nsga2Sampler(initial=4).ask(toy.problem, history, 4, seed=0)
    assert len(set(asked)) == 4
