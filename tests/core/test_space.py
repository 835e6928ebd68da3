"""The search space: what it draws it contains, conditions hold, documents round-trip."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.errors import InvalidStudy
from hpo.space import Candidate, Choice, Float, Int, SearchSpace, Value
from hpo.study import space_from_mapping
from tests.core.spaces import choices, drawn, ints, spaces, units

calm = settings(deadline=None, max_examples=60)


@calm
@given(st.data())
def test_what_a_space_draws_it_contains(data: st.DataObject) -> None:
    space, candidate = data.draw(drawn())
    assert space.contains(candidate)
    assert space.candidate(candidate.values) == candidate


@calm
@given(drawn())
def test_a_candidate_holds_the_active_parameters_and_no_other(pair: tuple[SearchSpace, Candidate]) -> None:
    space, candidate = pair
    values = candidate.values
    for name, parameter in space.parameters.items():
        holds = all(p in values and values[p] in allowed for p, allowed in parameter.when.items())
        assert (name in values) == holds
    assert set(space.active(values)) == set(values)


@calm
@given(drawn())
def test_what_is_active_has_ancestors_within_its_conditions(pair: tuple[SearchSpace, Candidate]) -> None:
    space, candidate = pair
    for name in candidate.values:
        for ancestor, allowed in space.conditions(name).items():
            assert candidate.values[ancestor] in allowed


@calm
@given(drawn())
def test_a_candidate_survives_the_unit_cube(pair: tuple[SearchSpace, Candidate]) -> None:
    space, candidate = pair
    again = space.from_unit(space.to_unit(candidate))
    assert again.values.keys() == candidate.values.keys() or _moves_a_parent(space)
    for name in again.values.keys() & candidate.values.keys():
        one, other = again.values[name], candidate.values[name]
        if isinstance(space.parameters[name], Float):
            assert one == pytest.approx(other, rel=1e-9, abs=1e-9)
        else:
            assert one == other


def _moves_a_parent(space: SearchSpace) -> bool:
    """Whether a condition hangs on the last digit of a real number, which may be lost on the way."""
    parents = {parent for parameter in space.parameters.values() for parent in parameter.when}
    return any(isinstance(space.parameters[parent], Float) for parent in parents)


@calm
@given(drawn(), st.floats(-2, 3))
def test_inactive_parameters_get_the_coordinate_asked_for(
    pair: tuple[SearchSpace, Candidate], inactive: float
) -> None:
    space, candidate = pair
    unit_cube = dict(zip(space.parameters, space.to_unit(candidate, inactive), strict=True))
    assert all(unit_cube[name] == inactive for name in space.parameters if name not in candidate.values)
    assert len(unit_cube) == len(space)


@calm
@given(st.data())
def test_coordinates_beyond_the_cube_are_drawn_as_its_faces(data: st.DataObject) -> None:
    space = data.draw(spaces())
    inside = data.draw(units(space))
    outside = [-0.5 if u == 0 else 1.5 if u == 1 else u for u in map(round, inside)]
    assert space.from_unit(outside) == space.from_unit([round(u) for u in inside])


def test_a_point_with_too_few_coordinates_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        SearchSpace({"a": Float(low=0, high=1), "b": Float(low=0, high=1)}).from_unit([0.5])


@calm
@given(st.data())
def test_a_space_survives_its_document_in_json(data: st.DataObject) -> None:
    space, candidate = data.draw(drawn())
    document = json.loads(json.dumps(space.to_mapping()))
    again = space_from_mapping(document)
    assert again == space
    assert list(again.parameters) == list(space.parameters)
    assert again.contains(candidate)


@calm
@given(st.data())
def test_parents_stand_before_children_however_the_file_is_ordered(data: st.DataObject) -> None:
    space = data.draw(spaces())
    shuffled = dict(data.draw(st.permutations(list(space.parameters.items()))))
    names = list(SearchSpace(shuffled).parameters)
    for name, parameter in shuffled.items():
        assert all(names.index(parent) < names.index(name) for parent in parameter.when)


@calm
@given(st.data())
def test_the_size_counts_every_combination_of_values(data: st.DataObject) -> None:
    small = st.one_of(ints().filter(lambda p: p.count <= 12), choices())
    drawn_ones = data.draw(st.lists(small, min_size=1, max_size=3))
    space = SearchSpace({f"p{i}": parameter for i, parameter in enumerate(drawn_ones)})
    every = [_values(parameter) for parameter in drawn_ones]
    named = [dict(zip(space.parameters, values, strict=True)) for values in itertools.product(*every)]
    assert space.size == len({space.candidate(values).key for values in named})


def _values(parameter: Float | Int | Choice) -> list[Value]:
    if isinstance(parameter, Choice):
        return list(parameter.choices)
    assert isinstance(parameter, Int)
    return list(range(parameter.low, parameter.high + 1, parameter.step))


def test_a_space_with_a_continuous_range_cannot_be_counted() -> None:
    assert SearchSpace({"a": Int(low=1, high=3), "b": Float(low=0, high=1)}).size is None


def test_conditions_make_the_size_an_upper_bound() -> None:
    assert _two_stages().size == 3 * 4
    points = [[a / 9, b / 9] for a in range(10) for b in range(10)]
    assert len({_two_stages().from_unit(point) for point in points}) == 1 + 2 * 4


def _two_stages() -> SearchSpace:
    return SearchSpace.of(
        [
            ("heal", Choice(choices=("none", "fine_tune", "distil"))),
            ("heal.steps", Int(low=25, high=100, step=25, when={"heal": ("fine_tune", "distil")})),
        ]
    )


def _three_floors() -> SearchSpace:
    return SearchSpace(
        {
            "rank": Int(low=1, high=9, when={"budget": ("rank",)}),
            "budget": Choice(choices=("rank", "share"), when={"method": ("svd", "wsvd")}),
            "method": Choice(choices=("svd", "wsvd", "mpo")),
        }
    )


def test_a_grandchild_needs_its_parent_to_be_active_and_not_only_to_have_a_value() -> None:
    space = _three_floors()
    assert list(space.parameters) == ["method", "budget", "rank"]
    assert space.active({"method": "mpo", "budget": "rank", "rank": 3}) == ("method",)
    assert space.active({"method": "svd", "budget": "rank", "rank": 3}) == ("method", "budget", "rank")
    assert space.candidate({"method": "mpo", "budget": "rank", "rank": 3}).values == {"method": "mpo"}


def test_the_conditions_of_a_grandchild_are_those_of_every_ancestor() -> None:
    assert _three_floors().conditions("rank") == {"method": ("svd", "wsvd"), "budget": ("rank",)}
    assert _three_floors().conditions("method") == {}


def test_conditions_met_on_two_ways_keep_what_both_allow() -> None:
    space = SearchSpace(
        {
            "a": Choice(choices=(1, 2, 3)),
            "b": Choice(choices=("x",), when={"a": (1, 2)}),
            "c": Int(low=0, high=1, when={"b": ("x",), "a": (2, 3)}),
        }
    )
    assert space.conditions("c") == {"a": (2,), "b": ("x",)}


def test_a_single_value_may_stand_for_a_list_of_one() -> None:
    assert Int.model_validate({"low": 0, "high": 1, "when": {"a": "x"}}).when == {"a": ("x",)}


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"heal": "distil"}, "no value for 'heal.steps'", "a whole number from 25 to 100 in steps of 25"),
        ({"heal": "distil", "heal.step": 25}, "unknown parameter 'heal.step'", "did you mean 'heal.steps'?"),
        ({"heal": "distil", "heal.steps": 30}, "heal.steps=30 is outside the space", "in steps of 25"),
        ({"heal": "tune"}, "heal='tune' is outside the space", "one of none, fine_tune, distil"),
        ({}, "no value for 'heal'", "one of none"),
    ],
)
def test_values_that_are_no_candidate_are_refused(values: dict[str, Value], message: str, hint: str) -> None:
    with pytest.raises(InvalidStudy) as caught:
        _two_stages().candidate(values)
    assert caught.value.message == message
    assert hint in caught.value.hint
    assert not _two_stages().contains(Candidate.of(values))


def test_a_candidate_with_an_inactive_value_is_not_of_the_space() -> None:
    extra = Candidate.of({"heal": "none", "heal.steps": 25})
    assert not _two_stages().contains(extra)
    assert _two_stages().candidate(extra.values) == Candidate.of({"heal": "none"})


def test_a_space_without_parameters_is_refused() -> None:
    with pytest.raises(InvalidStudy, match="the search space is empty") as caught:
        SearchSpace({})
    assert caught.value.where == ("space",)


def test_a_condition_on_a_parameter_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(InvalidStudy, match="'b' is conditional on the unknown parameter 'methd'") as caught:
        SearchSpace({"method": Choice(choices=("x",)), "b": Int(low=0, high=1, when={"methd": ("x",)})})
    assert caught.value.hint == "did you mean 'method'? allowed: method"
    assert caught.value.where == ("space", "b", "when", "methd")


@pytest.mark.parametrize("value", ["y", True, 1])
def test_a_condition_on_a_value_that_never_comes_is_refused(value: Value) -> None:
    with pytest.raises(InvalidStudy, match=f"method={value!r}, which 'method' never is") as caught:
        SearchSpace({"method": Choice(choices=("x",)), "b": Int(low=0, high=1, when={"method": (value,)})})
    assert caught.value.hint == "method is one of x"
    assert caught.value.where == ("space", "b", "when", "method")


def test_conditions_in_a_circle_are_refused() -> None:
    a, b = Int(low=0, high=1, when={"b": (0,)}), Int(low=0, high=1, when={"a": (0,)})
    with pytest.raises(InvalidStudy, match="the conditions of a, b form a circle"):
        SearchSpace({"a": a, "b": b, "c": Int(low=0, high=1)})
    with pytest.raises(InvalidStudy, match="the conditions of a form a circle"):
        SearchSpace({"a": Int(low=0, high=1, when={"a": (0,)})})


def test_a_parameter_for_each_block_is_spelt_out_for_a_model() -> None:
    template = Float(low=0.5, high=2.0, log=True, each="block", when={"factorise": ("svd",)})
    space = SearchSpace.of(
        [("factorise", Choice(choices=("svd", "none"))), ("factorise.block_weight", template)]
    )
    assert space.has_templates
    spelt = space.for_blocks(3)
    assert list(spelt.parameters)[1:] == [f"factorise.block_weight.{k}" for k in range(3)]
    assert not spelt.has_templates
    assert spelt.for_blocks(5) == spelt
    drawn = spelt.from_unit((0.0, 0.5, 0.5, 1.0))
    assert drawn.values["factorise.block_weight.2"] == 2.0
    assert SearchSpace.of(spelt.parameters.items()).to_mapping() == spelt.to_mapping()
    assert "factorise.block_weight.0" not in spelt.from_unit((0.9, 0.5, 0.5, 1.0)).values


def test_a_condition_on_a_parameter_for_each_block_is_refused() -> None:
    with pytest.raises(InvalidStudy, match="one of for each block"):
        SearchSpace.of(
            [
                ("a", Choice(choices=("x", "y"), each="block")),
                ("b", Choice(choices=("x",), when={"a": ("x",)})),
            ]
        )
