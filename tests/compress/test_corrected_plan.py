import pytest

from hpo.compress.corrected_plan import Corrected, PackedLowRank, corrected, packed_low_rank
from hpo.compress.grid import Grid
from hpo.compress.layer_plan import Dense
from hpo.errors import Unsupported

FOUR = Grid(4, 32)


def test_costs_of_a_corrected_layer_are_worked_by_hand() -> None:
    costs = Corrected(10, 64, FOUR, rank=3).costs
    assert costs.parameters == 10 * 64 + 3 * (10 + 64)
    assert costs.resident == 3 * (10 + 64)
    assert costs.packed_bytes == 10 * (32 + 2 * 2)  # 64 codes of half a byte and 2 scales of 2 bytes a row
    assert costs.macs(5) == 5 * (640 + 222)
    assert costs.size == "4 bits in groups of 32 + rank 3"


def test_factors_in_few_bits_are_bytes_and_not_resident() -> None:
    costs = Corrected(10, 64, FOUR, rank=3, factor_grid=Grid(8)).costs
    assert costs.parameters == 10 * 64 + 3 * (10 + 64)
    assert costs.resident == 0
    assert costs.packed_bytes == 10 * 36 + 3 * (10 + 2) + 3 * (64 + 2)


def test_costs_of_packed_factors_are_worked_by_hand() -> None:
    costs = PackedLowRank(10, 64, FOUR, rank=3).costs
    assert costs.parameters == costs.macs_per_token == 3 * (10 + 64)
    assert costs.resident == 0
    assert costs.packed_bytes == 3 * (5 + 2) + 3 * (32 + 2 * 2)


def test_plans_that_give_other_weights_have_other_keys() -> None:
    plans = [
        Corrected(32, 64, grid, rank, factor_grid, iterations)
        for grid in (FOUR, Grid(4), Grid(3, 32), Grid(4, 32, symmetric=False))
        for rank in (1, 2)
        for factor_grid in (None, FOUR, Grid(8, 32))
        for iterations in (1, 2)
    ]
    packed = [PackedLowRank(32, 64, FOUR, rank, iterations) for rank in (1, 2) for iterations in (1, 2)]
    keys = [plan.costs.key for plan in plans] + [plan.costs.key for plan in packed]
    assert len(set(keys)) == len(keys)


def test_a_layer_that_would_not_be_smaller_stays_dense() -> None:
    # 10 x 64 at 16 bits: 1,280 bytes. At 4 bits 360, so 920 are left: 6 ranks of 74 weights of 2 bytes.
    assert corrected(10, 64, FOUR, 6, weight_bits=16) == Corrected(10, 64, FOUR, 6)
    assert corrected(10, 64, FOUR, 7, weight_bits=16) == Dense(10, 64)
    assert corrected(10, 64, FOUR, 7, weight_bits=32).kind == "corrected"
    assert packed_low_rank(10, 64, Grid(8), 10, weight_bits=16).kind == "packed_low_rank"
    assert packed_low_rank(10, 10, Grid(8), 10, weight_bits=16) == Dense(10, 10)


def test_ranks_of_knobs_are_clipped_and_rank_zero_is_plain() -> None:
    assert corrected(10, 64, FOUR, 99, FOUR, 3, weight_bits=32) == Corrected(10, 64, FOUR, 10, FOUR, 3)
    assert corrected(10, 64, FOUR, 0, FOUR, 3, weight_bits=32) == Corrected(10, 64, FOUR, 0)
    assert packed_low_rank(10, 64, FOUR, 0, weight_bits=32) == PackedLowRank(10, 64, FOUR, 1)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(Unsupported, match="0 to 10"):
        Corrected(10, 64, FOUR, 11)
    with pytest.raises(Unsupported, match="1 to 10"):
        PackedLowRank(10, 64, FOUR, 0)
    with pytest.raises(Unsupported, match="0 iterations"):
        Corrected(10, 64, FOUR, 1, iterations=0)
