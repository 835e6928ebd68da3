"""Errors carry a message, a hint and an exit code; hints name the nearest spelling."""

import pytest

from hpo.errors import (
    HpoError,
    InvalidStudy,
    LeaseLost,
    ModelError,
    NonFinite,
    NotFound,
    StoreError,
    Unsupported,
    UsageError,
    did_you_mean,
)


def test_the_hint_stands_on_a_line_of_its_own_below_the_message() -> None:
    assert str(HpoError("it broke", "mend it")) == "it broke\n  mend it"


def test_without_a_hint_the_message_stands_alone() -> None:
    assert str(HpoError("it broke")) == "it broke"


@pytest.mark.parametrize("kind", [UsageError, InvalidStudy, ModelError, NotFound])
def test_what_the_user_asked_wrongly_exits_with_2(kind: type[HpoError]) -> None:
    assert kind("x").exit_code == 2


@pytest.mark.parametrize("kind", [HpoError, StoreError, LeaseLost, Unsupported, NonFinite])
def test_what_could_not_be_done_exits_with_1(kind: type[HpoError]) -> None:
    assert kind("x").exit_code == 1


def test_an_invalid_study_says_where_in_the_document_it_is_wrong() -> None:
    error = InvalidStudy("x", "y", ("objectives", 0, "limit"))
    assert (error.message, error.hint, error.where) == ("x", "y", ("objectives", 0, "limit"))
    assert InvalidStudy("x").where == ()


def test_the_nearest_spelling_comes_first_then_all_that_is_allowed_in_order() -> None:
    assert did_you_mean("trails", ["trials", "hours"]) == "did you mean 'trials'? allowed: hours, trials"


def test_a_word_like_none_of_them_is_not_guessed_at() -> None:
    assert did_you_mean("zebra", ["trials", "hours"]) == "allowed: hours, trials"


def test_an_empty_choice_is_said_to_be_empty() -> None:
    assert did_you_mean("anything", []) == "nothing is allowed here"
