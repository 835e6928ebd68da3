"""The grid: every combination once, in the order of the space."""

import pytest

from hpo.errors import InvalidStudy
from hpo.search.grid import GridSampler, check_countable
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Objective, Trial
from tests.search.problems import Toy, compression, plain

SPACE = SearchSpace.of(
    [
        ("seed", Choice(choices=(0, 1))),
        ("how", Choice(choices=("none", "svd"))),
        ("keep", Float(low=0.2, high=0.4, step=0.2, when={"how": ("svd",)})),
    ]
)
ORDER: list[dict[str, Value]] = [
    {"seed": 0, "how": "none"},
    {"seed": 0, "how": "svd", "keep": 0.2},
    {"seed": 0, "how": "svd", "keep": 0.4},
    {"seed": 1, "how": "none"},
    {"seed": 1, "how": "svd", "keep": 0.2},
    {"seed": 1, "how": "svd", "keep": 0.4},
]


def toy(space: SearchSpace = SPACE) -> Toy:
    return plain(space, [Objective(metric="perplexity")], (), lambda _: {"perplexity": 1.0})


def test_the_first_parameter_changes_last_and_inactive_ones_do_not_count() -> None:
    asked = GridSampler().ask(toy().problem, [], 99, seed=0)
    assert [dict(candidate.values) for candidate in asked] == ORDER


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_the_order_does_not_depend_on_how_many_are_asked_for_at_once(batch: int) -> None:
    history = toy().search(GridSampler(), 6, seed=batch, batch=batch)
    assert [dict(trial.candidate.values) for trial in history] == ORDER


def test_what_was_tried_out_of_turn_is_passed_over() -> None:
    problem = toy().problem
    history: list[Trial] = [toy().trial(0, Candidate.of(ORDER[1]))]
    asked = GridSampler().ask(problem, history, 2, seed=0)
    assert [dict(candidate.values) for candidate in asked] == [ORDER[0], ORDER[2]]


def test_a_large_grid_is_asked_for_its_first_points_without_being_listed() -> None:
    space = SearchSpace.of((f"x{i}", Int(low=1, high=1000)) for i in range(4))
    asked = GridSampler().ask(toy(space).problem, [], 3, seed=0)
    assert [candidate.values["x3"] for candidate in asked] == [1, 2, 3]
    assert {candidate.values["x0"] for candidate in asked} == {1}


@pytest.mark.parametrize("log", [False, True])
def test_a_continuous_parameter_is_refused_by_name(log: bool) -> None:
    space = SearchSpace.of([("how", Choice(choices=("svd",))), ("keep", Float(low=0.2, high=0.9, log=log))])
    with pytest.raises(InvalidStudy, match="'keep' is a number from") as caught:
        GridSampler().ask(toy(space).problem, [], 1, seed=0)
    assert caught.value.where == ("space", "keep")
    assert "choices" in caught.value.hint


def test_a_range_of_one_value_is_countable_and_a_search_space_with_ranges_is_not() -> None:
    check_countable(SearchSpace.of([("keep", Float(low=0.5, high=0.5))]))
    with pytest.raises(InvalidStudy, match="keep_ratio"):
        check_countable(compression().problem.space)
