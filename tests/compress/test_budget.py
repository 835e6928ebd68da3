import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.compress import allocate
from hpo.compress.budget import TOLERANCE, Array, Room, filled, rounded, scaled
from hpo.errors import Unsupported


def room(shapes: list[tuple[int, int]], least: float = 1.0, multiple: int = 1) -> Room:
    """The room of linear layers (out, in); `least` is cut to what each has."""
    outs, ins = (np.array(sides) for sides in zip(*shapes, strict=True))
    caps = np.maximum((outs * ins - 1) // (outs + ins), 1).astype(float)
    costs, dense = (outs + ins).astype(float), (outs * ins).astype(float)
    return Room(costs, caps, dense, np.minimum(np.full(len(shapes), least), caps), multiple)


def test_filling_a_budget_is_worked_by_hand() -> None:
    # Each costs 1. Doubled, the amounts are 2, 4 and 6, but the last may have 3 only: 9 in all.
    amounts = filled(np.array([1.0, 2.0, 3.0]), 9.0, np.ones(3), np.zeros(3), np.array([9.0, 9.0, 3.0]))
    assert amounts.tolist() == pytest.approx([2, 4, 3])
    # A low end of 3 holds the first up; 9 are left with 3 + 2 x 1.5 + 3.
    amounts = filled(
        np.array([1.0, 2.0, 3.0]), 9.0, np.ones(3), np.array([3.0, 0, 0]), np.array([9.0, 9.0, 3.0])
    )
    assert amounts.tolist() == pytest.approx([3, 3, 3])


@pytest.mark.parametrize(("budget", "expected"), [(0.0, [1, 2]), (1e9, [5, 5])])
def test_a_budget_beyond_either_end_gives_that_end(budget: float, expected: list[float]) -> None:
    amounts = filled(np.ones(2), budget, np.ones(2), np.array([1.0, 2.0]), np.array([5.0, 5.0]))
    assert amounts.tolist() == expected


def test_rounding_is_worked_by_hand() -> None:
    # Layers of 10 x 20: 30 weights a rank, at most 6, which means the dense 200.
    three = room([(10, 20)] * 3)
    assert three.caps.tolist() == [6, 6, 6]
    # 2.9 + 2.2 + 2.6 ranks cost 231: six whole ones 180, one more fits, and 2.9 is nearest to the next.
    assert rounded(np.array([2.9, 2.2, 2.6]), 231.0, three).tolist() == [3, 2, 2]


def test_the_jump_to_the_dense_layer_is_paid_in_full() -> None:
    # From rank 5 (150 weights) to the cap is 50, not 30.
    assert rounded(np.array([5.9]), 190.0, room([(10, 20)])).tolist() == [5]
    assert rounded(np.array([20 / 3]), 200.0, room([(10, 20)])).tolist() == [6]


def test_what_one_layer_cannot_use_another_does() -> None:
    # Ranks of 100 x 100 cost 200, of 20 x 20 cost 40. 1.9 and 1 round to 1 and 1, and 180 are left: the
    # small layer takes four more ranks.
    two = room([(100, 100), (20, 20)])
    assert rounded(np.array([1.9, 1.0]), 420.0, two).tolist() == [1, 5]


def test_where_steps_are_coarse_an_exchange_comes_nearer() -> None:
    # A rank of 30 x 30 costs 60, one of 25 x 25 costs 50; half a per cent of all weights is 7.6. Three ranks
    # each leave 12 of 342, which buy nothing; one up and one down spends 10 of them.
    two = room([(30, 30), (25, 25)])
    assert rounded(np.array([3.2, 3.0]), 342.0, two).tolist() == [4, 2]
    assert rounded(np.array([3.2, 3.0]), 336.0, two).tolist() == [3, 3]  # 6 are near enough


def test_ranks_are_multiples_where_the_cap_allows() -> None:
    ranks = rounded(np.array([70.0, 3.2]), 70 * 512 + 4 * 40, room([(256, 256), (20, 20)], multiple=16))
    assert ranks[0] == 64
    assert ranks[1] in range(3, 11)


@pytest.mark.parametrize("least", [0.5, 7.0])
def test_a_room_checks_itself(least: float) -> None:
    one = np.ones(1)
    with pytest.raises(Unsupported, match="least rank"):
        Room(30 * one, 6 * one, 200 * one, least * one)
    with pytest.raises(Unsupported, match="shapes"):
        Room(np.ones(2), one, one, one)


layers = st.lists(st.tuples(st.integers(16, 600), st.integers(16, 600)), min_size=1, max_size=14)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[int, int]], Array, float, float, int]:
    shapes = draw(layers)
    weights = draw(st.lists(st.floats(0.05, 5.0), min_size=len(shapes), max_size=len(shapes)))
    keep, floor = draw(st.floats(0.02, 0.98)), draw(st.floats(0.0, 1.0))
    return shapes, np.array(weights), keep, floor, draw(st.sampled_from([1, 1, 2, 8, 32]))


@settings(deadline=None, max_examples=200)
@given(cases())
def test_a_plan_meets_its_budget_within_half_a_per_cent_unless_steps_are_coarser(
    case: tuple[list[tuple[int, int]], Array, float, float, int],
) -> None:
    shapes, weights, keep, floor, multiple = case
    outs, ins = (np.array(sides) for sides in zip(*shapes, strict=True))
    total = float((outs * ins).sum())
    budget, uniform = keep * total, allocate.uniform_ranks(keep, outs, ins)
    caps = room(shapes).caps
    least = np.clip(floor * uniform, 1, np.maximum(caps - 1, 1))
    r = Room((outs + ins).astype(float), caps, (outs * ins).astype(float), least, multiple)

    wanted = scaled(uniform * weights, budget, r)
    ranks = rounded(wanted, budget, r).astype(float)

    assert ((ranks % r.steps == 0) | (ranks == caps)).all()
    assert (ranks >= r.whole_bottoms).all()
    assert (ranks <= caps).all()
    spent = float(r.weights(ranks).sum())
    smallest = float(r.weights(r.whole_bottoms).sum())
    if smallest > budget:  # too little for the least ranks: they are what is given
        assert (ranks == r.whole_bottoms).all()
    elif abs(spent - budget) > TOLERANCE * total:  # only where every further step is coarser than that
        prices = r.weights(r.above(ranks)) - r.weights(ranks)
        assert spent < budget
        assert (prices[ranks < caps] > TOLERANCE * total).all()
        assert (ranks < caps).any()


@settings(deadline=None, max_examples=100)
@given(cases())
def test_real_valued_ranks_cost_exactly_the_budget(
    case: tuple[list[tuple[int, int]], Array, float, float, int],
) -> None:
    shapes, weights, keep, _, multiple = case
    r = room(shapes, multiple=multiple)
    budget = keep * float(r.dense.sum())
    spent = float(scaled(weights, budget, r) @ r.costs)
    assert spent == pytest.approx(max(budget, float(r.bottoms @ r.costs)))
