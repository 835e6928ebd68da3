"""Rows of numbers, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.search.encoding import Encoding
from hpo.search.inputs import Inputs
from hpo.search.pool import Pool
from hpo.space import Candidate, Choice, Float, SearchSpace, Value
from tests.search.problems import compression

PLAIN = SearchSpace.of(
    [
        ("keep", Float(low=0.2, high=1.0)),
        ("rate", Float(low=1e-5, high=1e-1, log=True)),
        ("floor", Float(low=0.0, high=0.5, step=0.25)),
        ("bits", Choice(choices=(4, 8, "none"))),
        ("seed", Choice(choices=(7,))),
    ]
)
BRANCHED = SearchSpace.of(
    [
        ("how", Choice(choices=("svd", "mpo"))),
        ("how.keep", Float(low=0.0, high=1.0, when={"how": ("svd",)})),
        ("how.tilt", Float(low=0.0, high=1.0, when={"how": ("svd",)})),
        ("how.sites", Choice(choices=(2, 3), when={"how": ("mpo",)})),
        ("how.only", Choice(choices=("x",), when={"how": ("mpo",)})),
    ]
)


def row(space: SearchSpace, **values: Value) -> list[float]:
    candidate = Candidate.of({name.replace("__", "."): value for name, value in values.items()})
    encoded: list[float] = Encoding(space).encode([candidate])[0].tolist()
    return encoded


def test_numbers_are_placed_in_their_range_and_choices_are_one_hot() -> None:
    # keep: (0.4 - 0.2) / 0.8; rate: 2 of 4 decades; floor: the last of three steps, (2 + 0.5) / 3
    assert row(PLAIN, keep=0.4, rate=1e-3, floor=0.5, bits=8, seed=7) == pytest.approx(
        [0.25, 0.5, 2.5 / 3, 0, 1, 0]
    )


def test_columns_name_what_they_say_and_one_valued_parameters_have_none() -> None:
    assert Encoding(PLAIN).columns == ("keep", "rate", "floor", "bits=4", "bits=8", "bits=none")


def test_what_is_not_set_is_in_the_middle_and_each_condition_has_one_column() -> None:
    columns = Encoding(BRANCHED).columns
    assert columns[:2] == ("how=svd", "how=mpo")
    assert columns[2:6] == ("how.keep", "how.tilt", "how.sites=2", "how.sites=3")
    assert columns[6:] == ("how.keep|how.tilt set", "how.sites|how.only set")
    svd = row(BRANCHED, how="svd", how__keep=0.9, how__tilt=0.1)
    mpo = row(BRANCHED, how="mpo", how__sites=3, how__only="x")
    assert svd == pytest.approx([1, 0, 0.9, 0.1, 0.5, 0.5, 1, 0])
    assert mpo == pytest.approx([0, 1, 0.5, 0.5, 0, 1, 0, 1])


def test_the_dense_model_is_unset_in_everything() -> None:
    assert row(BRANCHED) == [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0]
    assert row(PLAIN) == pytest.approx([0.5, 0.5, 0.5, 1 / 3, 1 / 3, 1 / 3])


def test_an_anchor_from_outside_is_encoded_as_far_as_it_is_known() -> None:
    # keep 1.2 lies a quarter of the range above it; tilt is not said; sites belongs to the other branch
    assert row(BRANCHED, how="svd", how__keep=1.25, unknown=3) == pytest.approx(
        [1, 0, 1.25, 0.5, 0.5, 0.5, 1, 0]
    )
    assert row(BRANCHED, how="cp", how__keep=1e9) == pytest.approx([0.5, 0.5, 2, 0.5, 0.5, 0.5, 1, 0])
    assert row(PLAIN, keep="much", rate=-1.0, bits=16, floor=0.25)[:2] == [0.5, 0.5]


def test_no_candidates_are_no_rows() -> None:
    assert Encoding(BRANCHED).encode([]).shape == (0, 8)


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8), st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_rows_of_the_space_lie_in_the_unit_cube_and_tell_candidates_apart(
    one: list[float], other: list[float]
) -> None:
    space = compression().problem.space
    first, second = space.from_unit(one), space.from_unit(other)
    rows = Encoding(space).encode([first, second])
    assert (rows >= 0).all()
    assert (rows <= 1).all()
    if first == second:
        assert (rows[0] == rows[1]).all()


def test_inputs_add_features_and_exact_losses_on_a_log_scale_and_drop_what_never_varies() -> None:
    space = SearchSpace.of([("x", Float(low=0.0, high=2.0)), ("y", Float(low=0.0, high=1.0))])
    candidates = tuple(Candidate.of({"x": x, "y": 0.25}) for x in (0.0, 1.0, 2.0))
    pool = Pool(
        candidates,
        exact=np.array([[1.0, 0.0], [10.0, -1.0], [100.0, 1.0]]),
        features=np.array([[0.3, 7.0], [0.2, 7.0], [0.1, 7.0]]),
        plans=("a", "b", "c"),
        guesses=np.empty((3, 0)),
        shared=("", "", ""),
    )
    rows = Inputs.of(space, pool).rows(pool)
    # x; the first feature; log10 of the first loss over 2; the second loss, which may be negative
    assert rows == pytest.approx(np.array([[0, 0.3, 0, 0.5], [0.5, 0.2, 0.5, 0], [1, 0.1, 1, 1]]))
    assert Inputs.of(space, pool).rows(pool.first(1)) == pytest.approx(rows[:1])
