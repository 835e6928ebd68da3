"""Distances worked out by hand: the mean over the parameters that at least one of two candidates has."""

from dataclasses import replace

import pytest

from dashboards.neighbours import neighbours
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.trial import Cause, Trial
from tests.dashboards.hand import answered, asked

SPACE = SearchSpace(
    {
        "factorise": Choice(choices=("svd", "mpo")),
        "keep": Float(low=0.0, high=1.0, when={"factorise": ("svd",)}),
        "bond": Int(low=1, high=4, when={"factorise": ("mpo",)}),
        "rate": Float(low=1e-4, high=1e-2, log=True),
        "shift": Float(low=0.0, high=2.0, each="block"),
    }
)


def tried(number: int, **values: Value) -> Trial:
    return replace(answered(number), candidate=Candidate.of(values))


def distances(here: Trial, *others: Trial) -> dict[int, float]:
    return {n.trial.number: n.distance for n in neighbours(SPACE, here, [here, *others])}


def test_numbers_count_by_their_place_in_the_unit_cube_and_choices_by_being_others() -> None:
    here = tried(0, factorise="svd", keep=0.5, rate=1e-3)
    found = distances(
        here,
        tried(1, factorise="svd", keep=0.75, rate=1e-3),  # (0 + 0.25 + 0) / 3
        tried(2, factorise="svd", keep=0.5, rate=1e-2),  # half of the logarithmic range: (0 + 0 + 0.5) / 3
    )
    assert found == {1: pytest.approx(0.25 / 3), 2: pytest.approx(0.5 / 3)}


def test_a_parameter_that_only_one_has_counts_fully_and_one_that_neither_has_not_at_all() -> None:
    here = tried(0, factorise="svd", keep=0.5, rate=1e-3)
    found = distances(here, tried(1, factorise="mpo", bond=2, rate=1e-3))
    assert found == {1: pytest.approx(3 / 4)}  # factorise, keep and bond apart, rate alike


def test_a_parameter_of_every_block_is_a_number_too() -> None:
    here = tried(0, **{"shift.0": 0.0, "shift.1": 1.0})
    assert distances(here, tried(1, **{"shift.0": 1.0, "shift.1": 1.0})) == {1: pytest.approx(0.25)}


def test_values_outside_the_space_lie_at_its_ends_and_words_are_choices() -> None:
    here = tried(0, keep=0.5, quantize="int8")
    found = distances(here, tried(1, keep=9.0, quantize="int8"), tried(2, keep="all", quantize="int4"))
    assert found == {1: pytest.approx(0.25), 2: pytest.approx(1.0)}


def test_the_nearest_come_first_and_of_equals_the_earliest() -> None:
    here = tried(0, keep=0.5)
    others = [tried(n, keep=keep) for n, keep in ((1, 0.9), (2, 0.6), (3, 0.4), (4, 0.5), (5, 0.0), (6, 1.0))]
    found = neighbours(SPACE, here, [here, *others])
    assert [n.trial.number for n in found] == [4, 2, 3, 1, 5]
    assert found[0].differs == "nothing"
    assert found[1].differs == "keep: 0.5 → 0.6"


def test_only_completed_trials_are_neighbours_and_the_dense_model_has_none() -> None:
    here, dense = tried(0, keep=0.5), answered(1, origin="anchor:dense")
    failed = replace(asked(2), candidate=Candidate.of({"keep": 0.5})).failed(Cause.ERROR, "", 1.0)
    assert neighbours(SPACE, here, [here, dense, failed]) == []
    assert neighbours(SPACE, dense, [here, dense, failed]) == []
    assert neighbours(SPACE, here, []) == []
    assert [n.trial.number for n in neighbours(SPACE, failed, [here, dense, failed])] == [0]


def test_at_most_three_differences_are_named_and_long_values_cut() -> None:
    here = tried(0, a=1, b=2, c=3, d=4)
    (near,) = neighbours(SPACE, here, [here, tried(1, a="x" * 300, b=0, c=0, d=0)])
    assert near.differs == f"a: 1 → {'x' * 23}…, b: 2 → 0, c: 3 → 0, 1 more"
    (near,) = neighbours(SPACE, here, [here, tried(1, a=1, b=2, c=3)])
    assert near.differs == "d: 4 → –"
