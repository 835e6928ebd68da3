"""What so many of several runs attain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.attainment import attainment
from hpo.pareto import Array

A = np.array([[1.0, 3.0], [3.0, 1.0]])
B = np.array([[2.0, 2.0], [4.0, 0.5]])
C = np.array([[1.5, 4.0], [3.5, 3.0]])
NONE = np.empty((0, 2))


def corners(surface: Array) -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in surface]


def test_the_bands_of_three_tiny_fronts_are_as_worked_out_by_hand() -> None:
    found = attainment([A, B, C])
    # A quarter of three runs is one: the best of all. C adds nothing to it.
    assert corners(found[25]) == [(1, 3), (2, 2), (3, 1), (4, 0.5)]
    # A half is two: A and C meet in (1.5, 4), A and B in (2, 3), (3, 2) and (4, 1).
    assert corners(found[50]) == [(1.5, 4), (2, 3), (3, 2), (4, 1)]
    # Three quarters are all three: (2, 4) by A's, B's and C's first, (3.5, 3) by C's second.
    assert corners(found[75]) == [(2, 4), (3.5, 3)]


def test_a_run_without_points_attains_nothing_but_counts() -> None:
    found = attainment([A, B, NONE])
    assert corners(found[50]) == [(2, 3), (3, 2), (4, 1)]
    assert corners(found[75]) == []
    assert [len(surface) for surface in attainment([NONE, NONE, NONE]).values()] == [0, 0, 0]


def test_runs_that_are_alike_have_no_band() -> None:
    found = attainment([A, A, A, A])
    assert corners(found[25]) == corners(found[50]) == corners(found[75]) == [(1, 3), (3, 1)]


def test_fewer_than_three_runs_have_no_bands() -> None:
    with pytest.raises(ValueError, match="2 runs have no attainment bands, at least 3"):
        attainment([A, B])


def test_a_percentage_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="each must be above 0"):
        attainment([A, B, C], (0, 50))


_POINT = st.tuples(st.integers(0, 6), st.integers(0, 6))


@given(st.lists(st.lists(_POINT, max_size=4), min_size=3, max_size=7), _POINT)
def test_a_point_is_beyond_a_surface_if_and_only_if_so_many_runs_attain_it(
    runs: list[list[tuple[int, int]]], at: tuple[int, int]
) -> None:
    fronts = [np.array(run, dtype=float).reshape(-1, 2) for run in runs]
    attained = sum(bool((front <= np.array(at)).all(axis=1).any()) for front in fronts)
    for percent, surface in attainment(fronts).items():
        beyond = bool((surface <= np.array(at)).all(axis=1).any())
        assert beyond == (100 * attained >= percent * len(fronts))
