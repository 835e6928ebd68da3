"""Pareto mathematics against hand-worked fronts, brute force and BoTorch."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.pareto import Array, Frame, knee, nondominated

calm = settings(deadline=None, max_examples=80)
corner = st.floats(-0.5, 1.5)
losses_2 = st.lists(st.tuples(corner, corner), max_size=7)
losses_3 = st.lists(st.tuples(corner, corner, corner), max_size=6)
grid_3 = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12)

STAIRS = np.array([[0.2, 0.8], [0.5, 0.5], [0.8, 0.2], [0.9, 0.9], [0.5, 0.6]])


def _array(rows: list[tuple[float, ...]], width: int) -> Array:
    return np.array(rows, dtype=float).reshape(len(rows), width)


def _unit(width: int) -> Frame:
    return Frame((0.0,) * width, (1.0,) * width)


def _by_inclusion_and_exclusion(points_NM: Array) -> float:
    """Volume of the union of the boxes from each point (cut off at 0) to 1."""
    total = 0.0
    for size in range(1, len(points_NM) + 1):
        for some in itertools.combinations(points_NM, size):
            sides = np.clip(1 - np.maximum(np.max(some, axis=0), 0.0), 0.0, None)
            total += (-1) ** (size + 1) * float(np.prod(sides))
    return total


def test_a_hand_worked_front_keeps_the_three_steps_and_drops_what_lies_behind() -> None:
    assert nondominated(STAIRS).tolist() == [True, True, True, False, False]


def test_equal_points_all_stay() -> None:
    assert nondominated(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]])).tolist() == [True, True, False]


def test_a_point_without_all_values_is_never_on_the_front_and_dominates_nothing() -> None:
    losses = np.array([[np.nan, 0.0], [1.0, 1.0], [-np.inf, 0.0], [0.0, np.inf]])
    assert nondominated(losses).tolist() == [False, True, False, False]
    assert nondominated(losses[:1]).tolist() == [False]


def test_no_points_have_an_empty_front() -> None:
    assert nondominated(np.empty((0, 3))).tolist() == []


@calm
@given(grid_3)
def test_a_point_is_on_the_front_exactly_when_no_other_dominates_it(rows: list[tuple[float, ...]]) -> None:
    losses = _array(rows, 3)
    expected = [not any((q <= p).all() and (q < p).any() for q in losses) for p in losses]
    assert nondominated(losses).tolist() == expected


def test_a_hand_worked_hypervolume() -> None:
    # Columns of the staircase: 0.3 wide and 0.2 high, 0.3 and 0.5, 0.2 and 0.8.
    assert _unit(2).hypervolume(STAIRS) == pytest.approx(0.06 + 0.15 + 0.16)
    # The same in a box of other sides and another corner.
    stretched = STAIRS * [10, 100] + [3, -50]
    assert Frame((3, -50), (13, 50)).hypervolume(stretched) == pytest.approx(0.37)


@calm
@given(losses_2)
def test_the_hypervolume_of_two_objectives_is_that_of_the_union_of_boxes(
    rows: list[tuple[float, ...]],
) -> None:
    losses = _array(rows, 2)
    assert _unit(2).hypervolume(losses) == pytest.approx(_by_inclusion_and_exclusion(losses), abs=1e-9)


@calm
@given(losses_3)
def test_the_hypervolume_of_three_objectives_is_that_of_the_union_of_boxes(
    rows: list[tuple[float, ...]],
) -> None:
    losses = _array(rows, 3)
    assert _unit(3).hypervolume(losses) == pytest.approx(_by_inclusion_and_exclusion(losses), abs=1e-9)


# A dependency of BoTorch scripts functions when it is imported, which torch says it will drop.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("width", [2, 3, 4])
def test_the_hypervolume_is_botorchs(width: int) -> None:
    import torch
    from botorch.utils.multi_objective.hypervolume import Hypervolume

    losses = np.random.default_rng(width).uniform(0, 1.1, (12, width))
    inside = losses[(losses < 1).all(axis=1)]
    front = torch.tensor(-inside[nondominated(inside)])  # BoTorch maximises
    theirs = Hypervolume(ref_point=-torch.ones(width, dtype=torch.double)).compute(front)
    assert theirs > 0.01
    assert _unit(width).hypervolume(losses) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("width", [2, 3])
def test_the_hypervolume_is_the_share_of_random_points_that_are_dominated(width: int) -> None:
    rng = np.random.default_rng(7)
    losses = rng.uniform(0.1, 0.9, (8, width))
    probes = rng.uniform(0, 1, (200_000, width))
    dominated = np.zeros(len(probes), dtype=bool)
    for point in losses:
        dominated |= (probes >= point).all(axis=1)
    # Three standard errors of a share of 200,000 draws are below 0.0034.
    assert _unit(width).hypervolume(losses) == pytest.approx(dominated.mean(), abs=0.0034)


@pytest.mark.parametrize(
    "row", [[1.0, 0.0], [0.5, 1.0], [2.0, 2.0], [np.nan, 0.1], [np.inf, 0.1], [-np.inf, 0.1]]
)
def test_what_lies_on_or_beyond_the_reference_or_is_no_number_adds_nothing(row: list[float]) -> None:
    assert _unit(2).hypervolume(np.array([row])) == 0.0
    assert _unit(2).hypervolumes(np.array([row])).tolist() == [0.0]
    assert _unit(2).hypervolume(np.vstack([STAIRS, row])) == pytest.approx(0.37)
    assert _unit(2).hypervolumes(np.vstack([STAIRS, row]))[-1] == pytest.approx(0.37)


def test_a_point_better_than_the_ideal_counts_as_on_it() -> None:
    assert _unit(2).hypervolume(np.array([[-5.0, 0.5]])) == pytest.approx(0.5)
    assert _unit(2).hypervolume(np.array([[-5.0, -5.0]])) == pytest.approx(1.0)


@calm
@given(losses_3)
def test_the_hypervolume_after_each_point_is_that_of_the_points_so_far_and_never_falls(
    rows: list[tuple[float, ...]],
) -> None:
    losses = _array(rows, 3)
    curve = _unit(3).hypervolumes(losses)
    prefixes = [_unit(3).hypervolume(losses[: i + 1]) for i in range(len(losses))]
    assert curve == pytest.approx(prefixes, abs=1e-12)
    assert (np.diff(curve) >= -1e-12).all()


def test_the_curve_stays_where_a_point_adds_nothing() -> None:
    rows = np.array([[0.5, 0.5], [0.6, 0.6], [np.nan, 0.0], [0.5, 0.5], [0.0, 0.5]])
    assert _unit(2).hypervolumes(rows) == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.5])
    assert _unit(2).hypervolumes(np.empty((0, 2))).tolist() == []


@calm
@given(losses_2)
def test_the_order_of_the_points_does_not_matter(rows: list[tuple[float, ...]]) -> None:
    losses = _array(rows, 2)
    backwards = losses[::-1]
    assert _unit(2).hypervolume(losses) == pytest.approx(_unit(2).hypervolume(backwards), abs=1e-12)


def test_a_frame_maps_its_corners_to_0_and_1() -> None:
    frame = Frame((2.0, -1.0), (4.0, 1.0))
    assert frame.normalised(np.array([[2.0, -1.0], [4.0, 1.0], [3.0, 2.0]])).tolist() == [
        [0.0, 0.0], [1.0, 1.0], [0.5, 1.5],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ideal", "reference"),
    [
        ((0.0, 0.0), (1.0, 0.0)),
        ((0.0, 2.0), (1.0, 1.0)),
        ((0.0,), (1.0, 1.0)),
        ((0.0, math.nan), (1.0, 1.0)),
        ((0.0, 0.0), (1.0, math.inf)),
        ((-math.inf, 0.0), (1.0, 1.0)),
    ],
)
def test_a_frame_without_volume_is_refused(ideal: tuple[float, ...], reference: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"must lie above the ideal|shorter|longer"):
        Frame(ideal, reference)


def test_the_knee_of_a_hand_worked_front_is_the_point_nearest_its_own_ideal() -> None:
    # Scaled to [0, 1]: (0, 1), (0.25, 0.25), (1, 0), at distances 1, 0.354, 1.
    assert knee(np.array([[10.0, 500.0], [20.0, 200.0], [50.0, 100.0]])) == 1


def test_a_tie_for_the_knee_goes_to_the_first() -> None:
    assert knee(np.array([[0.0, 1.0], [1.0, 0.0]])) == 0


def test_an_objective_in_which_all_are_equal_does_not_move_the_knee() -> None:
    assert knee(np.array([[3.0, 5.0], [1.0, 5.0], [2.0, 5.0]])) == 1
    assert knee(np.array([[3.0, 5.0]])) == 0


def test_a_front_without_points_has_no_knee() -> None:
    with pytest.raises(ValueError, match="no knee"):
        knee(np.empty((0, 2)))
