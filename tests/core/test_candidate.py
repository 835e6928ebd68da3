"""Candidates: a candidate's key is its content."""

import hashlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.space import Candidate, Float, SearchSpace, Value
from tests.core.spaces import drawn, spaces, units

calm = settings(deadline=None, max_examples=60)


@calm
@given(drawn(), st.randoms())
def test_a_candidates_key_is_its_content_in_any_order(
    pair: tuple[SearchSpace, Candidate], shuffler: random.Random
) -> None:
    _, candidate = pair
    items = list(candidate.items)
    shuffler.shuffle(items)
    again = Candidate(tuple(items))
    assert again == candidate
    assert hash(again) == hash(candidate)
    assert again.key == candidate.key


@calm
@given(st.data())
def test_candidates_that_differ_have_different_keys_and_equal_ones_equal_keys(data: st.DataObject) -> None:
    space = data.draw(spaces())
    one, other = (space.from_unit(data.draw(units(space))) for _ in range(2))
    assert (one == other) == (one.key == other.key)


@calm
@given(drawn())
def test_a_candidate_survives_json_with_its_key(pair: tuple[SearchSpace, Candidate]) -> None:
    _, candidate = pair
    again = Candidate.of(json.loads(json.dumps(dict(candidate.values))))
    assert again == candidate
    assert again.key == candidate.key


def test_the_key_is_the_start_of_the_sha256_of_the_canonical_json() -> None:
    text = b'{"a":"x","b":0.5}'
    assert Candidate.of({"b": 0.5, "a": "x"}).key == hashlib.sha256(text).hexdigest()[:16]


def test_a_whole_number_in_a_range_of_reals_is_the_same_candidate_as_the_real_one() -> None:
    space = SearchSpace({"a": Float(low=0, high=4)})
    assert space.candidate({"a": 3}).key == space.candidate({"a": 3.0}).key == Candidate.of({"a": 3.0}).key


def test_the_empty_candidate_is_the_dense_model() -> None:
    assert Candidate().is_dense
    assert str(Candidate()) == "dense"
    assert not Candidate.of({"heal": "none"}).is_dense


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"factorise": "svd", "factorise.keep_ratio": 0.5}, "svd(keep_ratio=0.5)"),
        (
            {"heal.steps": 50, "heal": "fine_tune", "factorise.rank": 8, "factorise": "svd"},
            "svd(rank=8) fine_tune(steps=50)",
        ),
        ({"factorise": "mpo", "heal": "none"}, "mpo"),
        ({"heal": "none"}, "nothing"),
        ({"bits": 4}, "bits=4"),
        ({"factorise": "svd", "factorise.shift": "0," * 30 + "0"}, "svd(shift=0,0,0,0,0,0,0,0,0,0,0,0…)"),
        ({"factorise": "svd", "factorise.keep_ratio": 0.123456789}, "svd(keep_ratio=0.1235)"),
    ],
)
def test_a_candidate_is_said_in_short(values: dict[str, Value], text: str) -> None:
    assert str(Candidate.of(values)) == text
