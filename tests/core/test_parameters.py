"""Parameters: ranges and choices against the unit interval, what they accept, what makes no sense."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hpo.space import Choice, Float, Int, Value
from tests.core.spaces import choices, floats, ints, parameters

unit = st.floats(0, 1)
calm = settings(deadline=None, max_examples=60)


@calm
@given(parameters, unit)
def test_a_parameter_accepts_every_value_it_draws(parameter: Float | Int | Choice, u: float) -> None:
    assert parameter.accepts(parameter.from_unit(u))


@calm
@given(st.one_of(ints(), choices(), floats().filter(lambda p: p.step is not None)), unit)
def test_a_discrete_value_survives_the_way_to_the_unit_interval_and_back(
    parameter: Float | Int | Choice, u: float
) -> None:
    value = parameter.from_unit(u)
    again = parameter.from_unit(parameter.to_unit(value))
    assert again == value
    assert type(again) is type(value)


@calm
@given(floats().filter(lambda p: p.step is None and p.low < p.high), unit)
def test_a_real_number_survives_the_way_back_up_to_its_ten_digits(parameter: Float, u: float) -> None:
    value = parameter.from_unit(u)
    assert parameter.to_unit(value) == pytest.approx(u, abs=1e-4 if not parameter.log else 1e-6)
    assert parameter.from_unit(parameter.to_unit(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


@calm
@given(parameters, unit)
def test_a_value_lies_within_the_unit_interval(parameter: Float | Int | Choice, u: float) -> None:
    assert -1e-12 <= parameter.to_unit(parameter.from_unit(u)) <= 1 + 1e-12


@calm
@given(st.one_of(floats(), ints()), unit, unit)
def test_a_larger_coordinate_never_means_a_smaller_number(parameter: Float | Int, u: float, v: float) -> None:
    low, high = sorted((u, v))
    assert parameter.from_unit(low) <= parameter.from_unit(high)


@calm
@given(st.one_of(floats().filter(lambda p: p.step is None), ints()))
def test_the_ends_of_a_range_are_drawn_at_the_ends_of_the_unit_interval(parameter: Float | Int) -> None:
    top = (
        parameter.low + (parameter.count - 1) * parameter.step
        if isinstance(parameter, Int)
        else parameter.high
    )
    assert parameter.from_unit(0.0) == pytest.approx(parameter.low, rel=1e-9)
    assert parameter.from_unit(1.0) == pytest.approx(top, rel=1e-9)


@calm
@given(st.one_of(ints().filter(lambda p: p.count <= 60), choices()))
def test_every_value_of_a_discrete_parameter_is_drawn_somewhere(parameter: Int | Choice) -> None:
    drawn_values = {parameter.from_unit((i + 0.5) / 4000) for i in range(4000)}
    if isinstance(parameter, Int) and parameter.log:  # narrow slots at the top of a wide range
        assert {parameter.low, parameter.high} <= drawn_values
    else:
        assert len(drawn_values) == parameter.count


def test_a_log_range_is_halved_at_its_geometric_mean() -> None:
    assert Float(low=1e-4, high=1e-2, log=True).from_unit(0.5) == pytest.approx(1e-3)
    assert Float(low=1e-4, high=1e-2, log=True).to_unit(1e-3) == pytest.approx(0.5)
    assert Int(low=1, high=100, log=True).from_unit(0.5) == 7  # sqrt(0.5 * 100.5) = 7.09


def test_equal_slots_of_the_unit_interval_belong_to_the_steps() -> None:
    stepped = Float(low=0.1, high=0.5, step=0.2)
    assert [stepped.from_unit(u) for u in (0.0, 0.32, 0.34, 0.66, 0.67, 1.0)] == [
        0.1, 0.1, 0.3, 0.3, 0.5, 0.5,
    ]  # fmt: skip
    assert [stepped.to_unit(v) for v in (0.1, 0.3, 0.5)] == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    assert stepped.count == 3


def test_a_step_that_does_not_reach_the_top_ends_below_it() -> None:
    assert Int(low=1, high=10, step=4).from_unit(1.0) == 9
    assert Int(low=1, high=10, step=4).count == 3
    assert Float(low=0.0, high=1.0, step=0.3).from_unit(1.0) == 0.9


def test_a_range_of_one_value_counts_one_and_lies_in_the_middle() -> None:
    assert Float(low=3.0, high=3.0).count == 1
    assert Float(low=3.0, high=3.0).to_unit(3.0) == 0.5
    assert Float(low=3.0, high=3.0, log=True).from_unit(0.7) == 3.0
    assert Float(low=0.0, high=1.0).count is None


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Float(low=0, high=1), 1.5),
        (Float(low=0, high=1), math.nan),
        (Float(low=0, high=1), math.inf),
        (Float(low=0, high=1), True),
        (Float(low=0, high=1), "0.5"),
        (Float(low=0, high=1), 10**400),
        (Float(low=0, high=1, step=0.2), 0.5),
        (Int(low=0, high=10), 3.0),
        (Int(low=0, high=10), True),
        (Int(low=0, high=10), 11),
        (Int(low=0, high=10, step=2), 3),
        (Choice(choices=("a", 1)), "b"),
        (Choice(choices=("a", 1)), True),
        (Choice(choices=("a", 1)), 1.0),
    ],
)
def test_a_value_outside_a_parameter_is_not_accepted(parameter: Float | Int | Choice, value: Value) -> None:
    assert not parameter.accepts(value)


def test_a_whole_number_is_accepted_where_a_real_one_is_wanted() -> None:
    assert Float(low=0, high=4).accepts(3)
    assert Float(low=0.1, high=0.9, step=0.2).accepts(0.30000000000000004)


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (Float(low=0.1, high=0.9), "a number from 0.1 to 0.9"),
        (Float(low=0, high=1, step=0.25), "a number from 0 to 1 in steps of 0.25"),
        (Int(low=1, high=8), "a whole number from 1 to 8"),
        (Int(low=0, high=8, step=4), "a whole number from 0 to 8 in steps of 4"),
        (Choice(choices=("svd", "mpo", 2)), "one of svd, mpo, 2"),
    ],
)
def test_a_parameter_says_what_it_may_be(parameter: Float | Int | Choice, text: str) -> None:
    assert parameter.describe() == text


@pytest.mark.parametrize(
    ("kind", "keys", "complaint"),
    [
        (Float, {"low": 2, "high": 1}, r"low \(2\) is above high \(1\)"),
        (Float, {"low": 0, "high": 1, "log": True}, "a log range needs low above 0, got 0"),
        (Float, {"low": -1, "high": 1, "log": True}, "a log range needs low above 0, got -1"),
        (Float, {"low": 1, "high": 2, "log": True, "step": 0.1}, "a log range cannot have a step"),
        (Float, {"low": 1, "high": 2, "step": 0}, "greater than 0"),
        (Float, {"low": math.nan, "high": 2}, "finite number"),
        (Float, {"low": 0, "high": math.inf}, "finite number"),
        (Float, {"low": -1e308, "high": 1e308}, "holds more than can be counted"),
        (Float, {"low": 0, "high": 1e300, "step": 1e-300}, "holds more than can be counted"),
        (Int, {"low": 3, "high": 2}, r"low \(3\) is above high \(2\)"),
        (Int, {"low": 0, "high": 8, "log": True}, "a log range needs low above 0, got 0"),
        (Int, {"low": 1, "high": 8, "log": True, "step": 2}, "a log range cannot have a step"),
        (Int, {"low": 1, "high": 8, "step": 0}, "greater than or equal to 1"),
        (Int, {"low": 1, "high": 10**400}, "less than or equal to 9007199254740992"),
        (Choice, {"choices": []}, "at least 1 item"),
        (Choice, {"choices": ["a", "b", "a"]}, "the choice 'a' is named twice"),
        (Choice, {"choices": [1, True]}, "the choice True is named twice"),
        (Choice, {"choices": [1, 1.0]}, "the choice 1.0 is named twice"),
        (Choice, {"choices": [math.nan]}, "the choice nan is no finite number"),
        (Float, {"low": 0, "high": 1, "hgih": 2}, "not permitted"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(
    kind: type[Float | Int | Choice], keys: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        kind.model_validate(keys)
