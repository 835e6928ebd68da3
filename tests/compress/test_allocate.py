import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpo.compress import allocate
from hpo.compress.budget import Room, filled
from hpo.compress.profile import LEVELS


def test_tail_energy_is_worked_by_hand() -> None:
    # squares 16, 9, 0: total 25
    assert allocate.tail_energy(np.array([4.0, 3.0, 0.0])).tolist() == pytest.approx([1, 9 / 25, 0, 0])


@pytest.mark.parametrize(("kept", "rank"), [(0.5, 1), (16 / 25, 1), (0.65, 2), (1.0, 2)])
def test_rank_for_energy_is_the_smallest_that_keeps_enough(kept: float, rank: int) -> None:
    assert allocate.rank_for_energy(allocate.tail_energy(np.array([4.0, 3.0, 0.0])), kept) == rank


def test_uniform_ranks_follow_the_published_formula() -> None:
    # SVD-LLM on 4096 x 4096 and 4096 x 11008 at 80 % kept: 1638 and 2388
    ranks = allocate.uniform_ranks(0.8, np.array([4096, 4096]), np.array([4096, 11008]))
    assert np.floor(ranks).tolist() == [1638, 2388]


def room(least: list[float], outs: int = 64, ins: int = 64) -> Room:
    """As many equal layers; ranks cost 128 weights each, 32 would be as many as the matrix has."""
    count = len(least)
    costs, dense = np.full(count, float(outs + ins)), np.full(count, float(outs * ins))
    caps = np.full(count, float((outs * ins - 1) // (outs + ins)))
    return Room(costs, caps, dense, np.array(least))


def test_spectral_ranks_give_more_to_the_layer_with_the_flatter_spectrum() -> None:
    flat, steep = np.ones(64), np.geomspace(1, 1e-4, 64)
    table = allocate.spectral_table([allocate.tail_energy(flat), allocate.tail_energy(steep)], LEVELS)
    ranks = allocate.spectral_ranks(128.0 * 24, table, room([4.0, 4.0]), np.ones(2))
    assert ranks[0] > 2 * ranks[1]
    assert ranks[1] >= 4.0
    assert float(ranks.sum()) == pytest.approx(24, rel=0.02)


def test_sensitivity_ranks_are_worked_by_hand() -> None:
    # Rises at half the weights: 3 and 1. The first layer falls 6 a share to 0, the second from 2 over 1:
    # 2 a share up to a half, then 2 again. All beyond the least rank goes to the first, which is then full.
    shares, rises = np.array([0.25, 0.5]), np.array([[4.5, 3.0], [1.5, 1.0]])
    two = room([4.0, 4.0])
    assert allocate.sensitivity_ranks(128.0 * 28, shares, rises, two).tolist() == pytest.approx([24, 4])
    assert allocate.sensitivity_ranks(128.0 * 40, shares, rises, two).tolist() == pytest.approx([32, 8])


def test_sensitivity_spends_along_the_convex_hull_and_lifts_noise() -> None:
    # The first curve is flat and then falls: along its hull it gains 1 a share throughout. The second is
    # noise around nothing and gets its least rank only.
    shares = np.array([0.25, 0.5, 0.75])
    rises = np.array([[0.75, 0.74, 0.73], [-0.01, 0.0, -0.02]])
    ranks = allocate.sensitivity_ranks(128.0 * 20, shares, rises, room([2.0, 2.0]))
    assert ranks.tolist() == pytest.approx([18, 2])


curves = st.lists(
    st.lists(st.floats(0, 3, allow_subnormal=False), min_size=3, max_size=3), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=60)
@given(curves=curves, keep=st.floats(0.15, 0.95))
def test_no_other_ranks_of_the_same_cost_lose_less_by_convex_curves(
    curves: list[list[float]], keep: float
) -> None:
    """Against ranks drawn at random, on curves that are sorted so that they are convex."""
    shares = np.array([0.0, 0.25, 0.5])
    falls = np.sort(np.array(curves), axis=1)[:, ::-1] * np.array([0.25, 0.25, 0.5])
    rises = np.cumsum(falls[:, ::-1], axis=1)[:, ::-1]
    count = len(curves)
    everywhere = Room(np.full(count, 1.0), np.full(count, 99.0), np.full(count, 100.0), np.ones(count))
    budget = keep * 100 * count
    ranks = allocate.sensitivity_ranks(budget, shares, rises, everywhere)
    assert float(ranks.sum()) == pytest.approx(budget)
    points, values = np.append(shares, 1.0), np.hstack([rises, np.zeros((count, 1))])

    def loss(given: NDArray[np.float64]) -> float:
        return float(sum(np.interp(g / 100, points, v) for g, v in zip(given, values, strict=True)))

    generator = np.random.default_rng(0)
    for _ in range(20):
        other = filled(
            generator.exponential(size=count), budget, np.ones(count), np.ones(count), ranks * 0 + 100
        )
        assert loss(ranks) <= loss(other) + 1e-9


def test_waterfill_ranks_are_worked_by_hand() -> None:
    # log(e + loss) is 2 and 4 in the first group: of the half that each loses on average, two thirds and
    # one third of twice as much go, 2/3 and 1/3. The layer that is alone in its group loses the half.
    losses = np.array([np.e**2, np.e**4, 7.0]) - np.e
    ranks = allocate.waterfill_ranks(0.5, losses, np.array([0, 0, 1]), room([1.0, 1.0, 1.0]))
    assert ranks.tolist() == pytest.approx([32 / 3, 64 / 3, 16])


def test_softmax_ranks_are_worked_by_hand() -> None:
    # exp(-influence) is 1 and 1/3: the first block loses three times as much, 3/4 and 1/4 of all weights.
    influences, blocks = np.array([0.0, np.log(3.0)]), np.array([0, 0, 1, 1])
    ranks = allocate.softmax_ranks(0.5, influences, blocks, 1.0, room([1.0] * 4))
    assert ranks.tolist() == pytest.approx([8, 8, 24, 24])
    even = allocate.softmax_ranks(0.5, influences, blocks, 100.0, room([1.0] * 4))
    assert even.tolist() == pytest.approx([16] * 4, rel=0.02)


def test_what_a_layer_may_not_lose_the_others_do() -> None:
    # By its weight the first layer would lose more than it has; it keeps 12, and the rest share the loss.
    influences, blocks = np.array([0.0, 1.0, 1.0]), np.array([0, 1, 2])
    ranks = allocate.softmax_ranks(0.5, influences, blocks, 0.1, room([12.0, 1.0, 1.0]))
    assert ranks.tolist() == pytest.approx([12, 18, 18])
